"""Taking out of a text what says who and where its writer is, and what gives access.

    hide = Private.of_this_machine(workspace)
    hide("ValueError in /home/ada/secret-idea/train.py")      # "ValueError in ~/.../train.py"

User name, host name, home and other private folders, git identity and remotes, e-mail and network
addresses, credentials in URLs, and values of variables and strings that look like tokens. It errs
on the side of hiding; whoever sends the text reads it first all the same.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

SHORTEST_NAME = 3  # characters; a shorter name is hidden in paths and addresses alone
SHORTEST_SECRET = 6
# Names that say nothing of anybody, and are words besides.
COMMON = frozenset(
    {"root", "user", "admin", "administrator", "ubuntu", "debian", "runner", "docker", "vagrant"}
    | {"guest", "home", "linux", "localhost", "origin", "main", "master", "upstream", "python"}
)
SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|_KEY$|AUTH|COOKIE|WEBHOOK", re.IGNORECASE
)
_TOKENS = re.compile(
    r"\b(?:hf_|sk-|sk_|pk_|rk_|ghp_|gho_|ghs_|ghu_|github_pat_|glpat-|xox[a-z]-|npm_|pypi-|wandb_|"
    r"AIza|AKIA|ASIA|ya29\.|eyJ)[A-Za-z0-9_\-./+=]{6,}|\bBearer\s+\S+|\b[0-9a-fA-F]{40,}\b"
)
_ASSIGNED = re.compile(
    r"(?i)(\b[\w-]*(?:token|secret|passw(?:or)?d|credential|api[_-]?key)[\w-]*[\"']?\s*[=:]\s*)"
    r"[\"']?[^\s\"',;]+"
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>)\]]+", re.IGNORECASE)
_SCP = re.compile(r"\b[\w.-]+@[\w.-]+:[\w./~-]+")
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*")
_IP = re.compile(
    r"(?<![\d.])(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)|\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b",
    re.IGNORECASE,
)
# What may be IPv6: `_hide_ipv6` looks whether it is.
_COLONS = re.compile(
    r"(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,8}(?:(?:\.\d{1,3}){3})?", re.IGNORECASE
)
# A path that isn't in quotes may hold spaces, too: they belong to it where another part of a path
# follows, or a file's name with its kind.
_WORD = r"[^\s\"':;,()\]\\/]+"
_SPACED = rf"(?: {_WORD}){{1,4}}(?:[\\/]|\.[A-Za-z]\w{{0,10}}\b)"
_REST = rf"(?:{_SPACED}|[^\s\"':;,)\]])*"
_HOMES = re.compile(
    r"(?:/home|/Users|/var/home|[A-Za-z]:[\\/]+Users)[\\/]+"
    rf"{_WORD}(?:(?: {_WORD}){{1,3}}(?=[\\/]))?",
    re.IGNORECASE,
)
# Any other absolute path, but for where systems keep what is the same for everybody.
_ELSEWHERE = re.compile(
    r"(?<![\w.<>/~:-])(?:/(?!(?:usr|lib\w*|s?bin|dev|proc|sys|etc|nix|opt/(?:rocm|cuda)\S*)/)[\w.+-]+/"
    r"|[A-Za-z]:[\\/](?!Windows|Program))" + _REST
)
_UNDER_HOME = re.compile(r"~[\\/]" + _REST)
# In quotes a path may hold spaces.
_QUOTED = re.compile(r"\"(?:~|<workspace>|/|[A-Za-z]:)[\\/]?[^\"\n]*\"")
_INSTALLED = re.compile(r"[^\s\"'(]*[\\/](?:site|dist)-packages[\\/]")
# What may be told of a file under a private folder: that it is one of these kinds.
_KINDS = (".py", ".so", ".toml", ".jsonl", ".yaml", ".dll", ".dylib", ".log")


@dataclass(frozen=True)
class Private:
    """What is private: folders (with what stands in their place), names, and secrets themselves."""

    folders: Mapping[str, str]
    names: Mapping[str, str]
    secrets: tuple[str, ...] = ()

    @classmethod
    def of_this_machine(
        cls, workspace: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> Private:
        """Everything of this user, machine and workspace that can be found without a network."""
        environ = os.environ if environ is None else environ
        names = dict.fromkeys(_users(environ), "<user>")
        names |= dict.fromkeys(_hosts(environ), "<host>")
        place = workspace or Path.cwd()
        names |= dict.fromkeys(_git_words(place), "<git>")
        package = Path(__file__).resolve().parent.parent
        homes = [str(Path.home()), environ.get("HOME", ""), environ.get("USERPROFILE", "")]
        folders = {str(Path(home)): "~" for home in homes if len(home) > 1}
        folders |= {str(Path(home).resolve()): "~" for home in homes if len(home) > 1}
        for folder in (place, place.resolve()):
            folders[str(folder)] = "<workspace>"
        folders[str(package)] = "<autoresearch>"
        values = (value.strip() for name, value in environ.items() if SECRET_NAME.search(name))
        secrets = tuple(value for value in values if len(value) >= SHORTEST_SECRET)
        return cls({k: v for k, v in folders.items() if len(k) > 1}, names, secrets)

    def __call__(self, text: str) -> str:
        """The text without any of it."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "<secret>")
        text = _ASSIGNED.sub(r"\1<secret>", _TOKENS.sub("<secret>", text))
        text = _URL.sub(lambda match: _host_alone(match[0]), text)
        text = _INSTALLED.sub("<packages>/", text)
        for folder, instead in sorted(self.folders.items(), key=lambda item: -len(item[0])):
            ends = r"(?=[\\/\s\"':;,)\]]|$)"
            for spelled in {folder, folder.replace("\\", "\\\\"), folder.replace("\\", "/")}:
                text = re.sub(re.escape(spelled) + ends, lambda _, i=instead: i, text)  # type: ignore[misc]
        text = _HOMES.sub("~", text)
        text = _QUOTED.sub(lambda match: _without_spaces(match[0]), text)
        text = _UNDER_HOME.sub(_kind_alone, text)
        text = _ELSEWHERE.sub(_kind_alone, text)
        text = _MAIL.sub("<address>", _SCP.sub("<remote>", text))
        text = _IP.sub("<address>", _COLONS.sub(_hide_ipv6, text))
        for name, instead in sorted(self.names.items(), key=lambda item: -len(item[0])):
            if len(name) >= SHORTEST_NAME and name.lower() not in COMMON:
                whole = rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"
                text = re.sub(whole, lambda _, i=instead: i, text, flags=re.IGNORECASE)  # type: ignore[misc]
        return text


def _users(environ: Mapping[str, str]) -> Iterable[str]:
    """The user's names, the full one too."""
    found = {environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a container's user has no name
        found.add(getpass.getuser())
    try:
        import pwd

        full = pwd.getpwuid(os.getuid()).pw_gecos.split(",")[0]
        found |= {full, *full.split()}
    except (ImportError, KeyError):
        pass  # Windows; or a user without an entry
    found.add(Path.home().name)
    return filter(None, found)


def _hosts(environ: Mapping[str, str]) -> Iterable[str]:
    """The machine's names, with and without their domain."""
    names = {socket.gethostname(), platform.node()}
    names |= {environ.get(name, "") for name in ("HOSTNAME", "COMPUTERNAME", "USERDOMAIN")}
    return filter(None, names | {name.partition(".")[0] for name in names})


def _git_words(place: Path) -> Iterable[str]:
    """Who commits in a repository, and the names and places of its remotes."""
    command = ["git", "config", "--get-regexp", r"^(user\.|remote\.|url\.|credential\.|github\.)"]
    try:
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return set()
    found = set()
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        if key.startswith("remote."):
            found.add(key.split(".")[1])
        if key != "user.email":  # an address is hidden as such
            found |= {value, *re.split(r"[\s/:@]+|\.git\b", value)}
    boring = re.compile(
        r"\W*|\+?refs|heads|remotes|https?|ssh|git|true|false|.*\.(com|org|io)|\*.*"
    )
    return {word for word in found if not boring.fullmatch(word)}


def _host_alone(url: str) -> str:
    """A URL's scheme, and its host if that is one that everybody knows."""
    known = ("huggingface.co", "pytorch.org", "github.com", "pypi.org")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "<address>"
    if any(host == name or host.endswith(f".{name}") for name in known):
        return f"{parts.scheme}://{host}/..."
    return f"{parts.scheme}://<address>"


def _kind_alone(match: re.Match[str]) -> str:
    """`~/.../train.py` for a file of a kind that tells nothing of its owner, else `~/...`."""
    name = re.split(r"[\\/]", match[0])[-1]
    known = {"train.py", "autoresearch.toml", "program.md", "results.jsonl", "task.yaml"}
    shown = name if name in known else f"*{Path(name).suffix}" if name.endswith(_KINDS) else ""
    root = "~" if match[0].startswith("~") else ""
    return f"{root}/.../{shown}" if shown else f"{root}/..."


def _hide_ipv6(match: re.Match[str]) -> str:
    """Any that names a machine; a time is none, and a slice in Python looks like no real one."""
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return match[0]
    real = int(address) >> 112 >= 0x64 or address.ipv4_mapped is not None
    return "<address>" if real else match[0]


def _without_spaces(path: str) -> str:
    """A quoted path in which what follows takes a space for a part of it."""
    return re.sub(r"\s+", "_", path)
