"""The MCP server of a workspace: what `autoresearch mcp` serves on standard input and output.

    reading.py      what there is to see, as JSON-ready documents; knows nothing of MCP
    measuring.py    a trial as a process of its own, followed line by line
    server.py       both as tools and resources of the official SDK
    clients.py      how coding agents are told of the server

The package isn't called `mcp`: that is the SDK.
"""
