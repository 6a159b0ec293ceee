"""The routes of the dashboard. What they show is made in views.py, who may ask in guard.py.

app = make_app(Follower(folder), Keys())

Pages are whole HTML documents that can be read without a script. A script adds what is live: it
gets events, and asks for parts of pages (`/trials`, `/chart/NAME`), which are made here, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from autoresearch.console import to_json
from autoresearch.dashboard import drawings, views
from autoresearch.dashboard.bundle import vega_bundle, version
from autoresearch.dashboard.follower import Event, Follower
from autoresearch.dashboard.guard import COOKIE, Guard, Keys
from autoresearch.dashboard.machine import Machine
from autoresearch.engine.control import GO_ON, PAUSE, STOP
from autoresearch.engine.errors import EngineError
from autoresearch.engine.program import add_note, notes_section, write_notes
from autoresearch.opening import own_folder, task_of
from autoresearch.report.chart import Chart
from autoresearch.report.charts import CHARTS
from autoresearch.study import PROGRAM_NAME
from prepare.errors import PrepareError

HERE = Path(__file__).parent
PAGES = {"": "Night", "champion": "Champion", "machine": "Machine", "notes": "Notes"}
RETRY = 1000  # milliseconds after which a browser comes back for events
MOST_BYTES = 200_000  # of what is sent here
SPEEDS = ("speed", "mfu", "phases")  # charts of the page on the machine
SAID = {
    "pause": "The run pauses after the trial under way.",
    "resume": "The run goes on.",
    "stop": "The run ends after the trial under way.",
    "note": "The note is in program.md: the next proposal reads it.",
    "saved": "The notes are in program.md: the next proposal reads them.",
}


class Pages:
    """The handlers, around one follower."""

    def __init__(self, follower: Follower, keys: Keys) -> None:
        self._follower, self._keys = follower, keys
        self._machine = Machine(follower.folder if follower.folder.is_dir() else Path("."))
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._templates.globals.update(root=f"/{keys.room}", vega=version())

    def routes(self) -> list[Route | Mount]:
        """All of them; those of the room are below its name."""
        get, post = ["GET"], ["POST"]
        inside = [
            Route("/", self.night, methods=get),
            Route("/trials", self.trials, methods=get),
            Route("/trial/{number:int}", self.trial, methods=get),
            Route("/trial/{number:int}/curve", self.curve, methods=get),
            Route("/trial/{number:int}/log/{name:path}", self.log, methods=get),
            Route("/champion", self.champion, methods=get),
            Route("/champion/{name:path}", self.download, methods=get),
            Route("/machine", self.machine, methods=get),
            Route("/machine/now", self.meters, methods=get),
            Route("/notes", self.notes, methods=get),
            Route("/notes", self.change_notes, methods=post),
            Route("/control", self.control, methods=post),
            Route("/chart/{name}", self.chart, methods=get),
            Route("/events", self.events, methods=get),
        ]
        return [
            Route("/", self.door, methods=get),
            Route("/static/vega.js", vega, methods=get),
            Mount("/static", StaticFiles(directory=HERE / "static")),
            Mount(f"/{self._keys.room}", routes=inside),
        ]

    # -- making pages ----------------------------------------------------------------------------

    def _part(self, template: str, **values: Any) -> str:
        return self._templates.get_template(template).render(values)

    def _page(self, template: str, status: int = 200, here: str = "", **values: Any) -> Response:
        """A whole page; before the ledger was read once, one that says so and asks again."""
        follower = self._follower
        common = {
            "pages": PAGES,
            "here": here,
            "tag": follower.study.tag,
            "problem": follower.problem,
            "head": follower.head,
        }
        if not follower.story:
            return HTMLResponse(self._part("reading.html", **common))
        common["now"] = views.standing(follower.standing)
        return HTMLResponse(self._part(template, **common, **values), status)

    async def _read(self) -> dict[str, Any]:
        """The story as it is now; {} while a long ledger is read for the first time."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._follower.refresh()), 0.3)
        return self._follower.story

    async def door(self, request: Request) -> Response:
        """The address with the token: the browser gets the cookie, and goes in.

        By a page and not by a redirection: after a link from elsewhere a browser would not send the
        cookie along with that.
        """
        response = HTMLResponse(self._part("door.html"), headers={"Referrer-Policy": "no-referrer"})
        path = f"/{self._keys.room}"
        response.set_cookie(COOKIE, self._keys.cookie, path=path, httponly=True, samesite="strict")
        return response

    # -- pages -----------------------------------------------------------------------------------

    async def night(self, request: Request) -> Response:
        """The progress chart, the trial under way, every trial."""
        story = await self._read()
        table = views.page_of(story["trials"], _query(request), story["direction"]) if story else 0
        chart = CHARTS["progress"](story) if story else None
        return self._page("night.html", table=table, chart=chart, asked=_query(request),
                          orders=views.ORDERS, statuses=views.STATUSES)  # fmt: skip

    async def trials(self, request: Request) -> Response:
        """The table alone."""
        story = await self._read()
        if not story:
            return PlainTextResponse("The ledger is being read.\n", 503)
        table = views.page_of(story["trials"], _query(request), story["direction"])
        return HTMLResponse(self._part("table.html", table=table))

    async def trial(self, request: Request) -> Response:
        """One trial."""
        story = await self._read()
        number = request.path_params["number"]
        study, state = self._follower.study, self._follower.state
        shown = await asyncio.to_thread(views.trial, study, state, number) if story else None
        if story and shown is None:
            return self._page("none.html", 404, "trial", what=f"There is no trial {number}.")
        chart = self._losses(number) if shown else None
        columns = views.show.RUN_COLUMNS
        return self._page("trial.html", here="trial", trial=shown, chart=chart, columns=columns)

    async def champion(self, request: Request) -> Response:
        """The lineage, and the champion's files."""
        story = await self._read()
        files = await asyncio.to_thread(self._files) if story else {}
        return self._page(
            "champion.html",
            here="champion",
            lineage=views.lineage(story) if story else [],
            chart=CHARTS["effects"](story) if story else None,
            files={name: len(data) for name, data in files.items()},
            kept=await asyncio.to_thread(views.kept_weights, self._follower.study, story),
            sample=await asyncio.to_thread(views.sample, self._follower.study, story),
        )

    async def machine(self, request: Request) -> Response:
        """What the machine is busy with, and how fast trials were."""
        story = await self._read()
        meters = await asyncio.to_thread(self._machine)
        made = [CHARTS[name](story) for name in SPEEDS] if story else []
        drawn = [chart for chart in made if chart is not None]
        return self._page("machine.html", here="machine", machine=meters, charts=drawn)

    async def meters(self, request: Request) -> Response:
        """The meters alone, measured now."""
        return HTMLResponse(
            self._part("meters.html", machine=await asyncio.to_thread(self._machine))
        )

    async def notes(self, request: Request) -> Response:
        """The notes, and what can be asked of the run."""
        await self._read()
        return self._notes(SAID.get(request.query_params.get("said", ""), ""))

    def _notes(self, said: str = "", wrong: str = "", text: str | None = None) -> Response:
        section = notes_section(self._program)
        return self._page(
            "notes.html",
            400 if wrong else 200,
            here="notes",
            section=section,
            text=section if text is None else text,
            said=said,
            wrong=wrong,
        )

    @property
    def _program(self) -> Path:
        task = task_of(self._follower.folder)
        return (self._follower.folder if task is None else task.parent) / PROGRAM_NAME

    # -- parts of pages --------------------------------------------------------------------------

    async def chart(self, request: Request) -> Response:
        """A chart with its data."""
        story = await self._read()
        make = CHARTS.get(request.path_params["name"])
        if make is None or not story:
            return PlainTextResponse("There is no such chart.\n", 404)
        made = await asyncio.to_thread(_as_json, make, story)
        return Response(made, media_type="application/json")

    async def curve(self, request: Request) -> Response:
        """The loss curve of a trial."""
        await self._read()
        found = self._losses(request.path_params["number"])
        if found is None:
            return PlainTextResponse("There is no such curve.\n", 404)
        return JSONResponse(json.loads(to_json(drawings.document(found))))

    async def log(self, request: Request) -> Response:
        """A whole log as plain text."""
        number, name = request.path_params["number"], request.path_params["name"]
        text = await asyncio.to_thread(views.log_text, self._follower.study, number, name)
        if text is None:
            return PlainTextResponse("There is no such log.\n", 404)
        return PlainTextResponse(text)

    def _losses(self, number: int) -> Chart | None:
        """The curve of a trial and of the champion that it was held against."""
        trials = self._follower.state.trials
        trial = trials.get(number)
        if trial is None or not trial.curve:
            return None
        champion = trials.get(trial.parent) if trial.parent is not None else None
        unit = "tokens" if self._follower.study.conditions.get("token_budget") else "s"
        rival = champion.curve if champion is not None else ()
        return drawings.losses(trial.curve, rival, unit, f"trial {number}")

    def _files(self) -> dict[str, bytes]:
        """The champion's artifacts by name, and its difference from the baseline."""
        from autoresearch.commands.export import artifact_diff

        study, kept = self._follower.study, self._follower.story["lineage"]
        if not kept or not kept[-1]["commit"]:
            return {}
        try:
            artifacts = dict(study.workspace.artifacts(kept[-1]["commit"], study.task))
            change = artifact_diff(study, kept[0]["commit"], kept[-1]["commit"])
        except (EngineError, OSError):  # a study whose repository is gone still has its ledger
            return {}
        patch = change.encode("utf-8", "surrogateescape")
        return {**artifacts, **({"champion.patch": patch} if patch else {})}

    async def download(self, request: Request) -> Response:
        """A file of the champion, to be saved: it is shown nowhere as a page."""
        story = await self._read()
        name = request.path_params["name"]
        found = (await asyncio.to_thread(self._files)).get(name) if story else None
        if found is None:
            return PlainTextResponse("The champion has no such file.\n", 404)
        return Response(found, media_type="application/octet-stream",
                        headers={"Content-Disposition": attachment(name)})  # fmt: skip

    # -- writing ---------------------------------------------------------------------------------

    async def control(self, request: Request) -> Response:
        """Pause, resume or stop the run."""
        await self._read()
        wish = (await _form(request)).get("wish", "")
        wishes = {"pause": PAUSE, "resume": GO_ON, "stop": STOP}
        if wish not in wishes:
            return self._notes(wrong="Ask for pause, resume or stop.")
        if not views.standing(self._follower.standing)["looping"]:
            return self._notes(wrong="No run is under way, so there is nothing to pause or stop.")
        await asyncio.to_thread(self._follower.study.control.ask, wishes[wish])
        self._follower.expire()
        return self._back(wish)

    async def change_notes(self, request: Request) -> Response:
        """Add a note, or write all of them anew."""
        await self._read()
        form = await _form(request)
        own = await asyncio.to_thread(own_folder, self._follower.folder)
        try:
            if "note" in form:
                day = datetime.date.today()
                await asyncio.to_thread(add_note, self._program, form["note"], day, own)
                return self._back("note")
            text, before = form.get("notes", ""), form.get("before", "")
            await asyncio.to_thread(write_notes, self._program, text, before, own)
        except (EngineError, PrepareError) as error:
            words = " ".join(filter(None, (error.message, error.hint)))
            return self._notes(wrong=words, text=form.get("notes"))
        except OSError as error:  # the disk, the permission, or another who is writing them
            words = f"program.md can't be written: {error.strerror or error}"
            return self._notes(wrong=words, text=form.get("notes"))
        return self._back("saved")

    def _back(self, said: str) -> Response:
        return RedirectResponse(f"/{self._keys.room}/notes?said={said}", 303)

    # -- events ----------------------------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Server-sent events: all after the id that the browser saw last."""
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        return StreamingResponse(self._stream(after), media_type="text/event-stream")

    async def _stream(self, after: str) -> AsyncIterator[str]:
        yield f"retry: {RETRY}\n\n"
        silent = 0
        async for event in self._follower.events(after):
            if event is None:
                silent += 1
                if silent % 20 == 0:
                    yield ": nothing new\n\n"
                continue
            yield self._message(event)

    def _message(self, event: Event) -> str:
        data = event.data
        if event.name == "standing":
            now = views.standing(data)
            chart = drawings.losses(*views.curves(data), now["unit"])
            data = {
                "html": self._part("standing.html", now=now),
                "chart": drawings.document(chart),
                "table": self._part("losses.html", chart=chart),
                "running": now["running"],
                "asked": now["asked"],
                "looping": now["looping"],
            }
        place = f"id: {event.id}\n" if event.id else ""
        return f"{place}event: {event.name}\ndata: {to_json(data or {})}\n\n"


def make_app(follower: Follower, keys: Keys) -> ASGIApp:
    """The application, guarded."""
    return Guard(Starlette(routes=Pages(follower, keys).routes()), keys)


async def vega(request: Request) -> Response:
    """The library that draws the charts."""
    path = await asyncio.to_thread(vega_bundle)
    return FileResponse(path, media_type="text/javascript",
                        headers={"Cache-Control": "max-age=31536000, immutable"})  # fmt: skip


def attachment(name: str) -> str:
    """The header that has a file saved under its own name; headers take Latin letters alone."""
    name = Path(name).name
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _as_json(make: Any, story: Mapping[str, Any]) -> str:
    made = make(story)
    return to_json(drawings.document(made) if made is not None else {})


def _query(request: Request) -> views.Query:
    return views.Query.read(request.query_params)


async def _form(request: Request) -> dict[str, str]:
    """What a form sent; {} for anything larger than a form of ours."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            return {}
    given = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0].replace("\r\n", "\n") for name, values in given.items()}
