"""`python mcp_workspace_server.py FOLDER`: the MCP server of a workspace with instant trials."""

import sys
from pathlib import Path

from autoresearch.mcp_server import measuring
from autoresearch.mcp_server.server import make_server

if __name__ == "__main__":
    measuring.COMMAND = (sys.executable, str(Path(__file__).with_name("quick_trials.py")))
    make_server(Path(sys.argv[1])).run("stdio")
