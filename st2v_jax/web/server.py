"""The server of the page: its files and what it asks for, beside gradio, which has the buttons."""

import hashlib
import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse

from st2v_jax.errors import SessionError
from st2v_jax.sessions.manifest import metadata
from st2v_jax.sessions.session import Session
from st2v_jax.web.guard import Guard
from st2v_jax.web.look import look
from st2v_jax.web.page import mounted
from st2v_jax.web.studio import Studio, frames_of

ASSETS = Path(__file__).parent / 'assets'
FOREVER = {'cache-control': 'private, max-age=31536000, immutable'}  # of what an id names
NEVER = {'cache-control': 'no-store'}


def application(studio: Studio, *, max_bytes: int, loopback: bool, users: Sequence[tuple[str, str]]) -> Guard:
    """The page as an ASGI application.

    Args:
      studio: what it shows and changes.
      max_bytes: of an upload.
      loopback, users: see Guard.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(SessionError)
    def refused(request, error):
        return PlainTextResponse(studio.told(error), 404, NEVER)

    @app.get('/st2v/page/{file}')
    def asset(file: str):
        if file not in ('page.js', 'page.css'):
            raise SessionError('there is no such file')
        return FileResponse(ASSETS / file, headers={'cache-control': 'no-cache'})

    @app.get('/st2v/look')
    def looked(session: str = '', branch: str = ''):
        return JSONResponse(look(studio, session, branch), headers=NEVER)

    @app.get('/st2v/preview/{session}/{branch}')
    def preview(session: str, branch: str):
        found = studio.turns.find((session, branch))
        if found is None or found[0].preview is None:
            raise SessionError('there is no preview')
        return Response(found[0].preview[1], media_type='image/png', headers=NEVER)

    @app.get('/st2v/chunk/{session}/{branch}/{number}/{file}')
    def chunk(session: str, branch: str, number: int, file: str):
        there, (id, ending) = Session(studio.place(session)).branch(branch), _split(file)
        if not 0 <= number < len(there.chunks) or there.chunks[number] != id:
            raise SessionError('there is no such chunk')
        kept = studio.seen.file(id, ending, lambda: studio.session(session).decoded(there, number, id)[0])
        return FileResponse(kept, headers=FOREVER)

    @app.get('/st2v/given/{session}/{branch}/{file}')
    def given(session: str, branch: str, file: str):
        opened = Session(studio.place(session))
        there, (id, ending) = opened.branch(branch), _split(file)
        if not there.goes_on or there.given.id != id:
            raise SessionError('the video goes on from nothing of that name')
        return FileResponse(studio.seen.file(id, ending, lambda: opened.given(there).frames), headers=FOREVER)

    @app.get('/st2v/download/{session}/{branch}')
    def download(session: str, branch: str):
        opened = studio.session(session)
        there = opened.branch(branch)
        if not there.chunks:
            raise SessionError('nothing is made yet')
        of = f'{session} {branch} {there.chunks[-1]} {there.num_frames}'
        name = hashlib.sha256(of.encode()).hexdigest()
        kept = studio.seen.video(name, lambda: frames_of(opened, there), lambda: metadata(opened, there))
        return FileResponse(kept, filename=f'{session}-{branch}.mp4', headers=NEVER)

    @app.get('/st2v/enhanced/{session}/{branch}')
    def enhanced(session: str, branch: str, watch: bool = False):
        file = studio.enhanced_file(session, Session(studio.place(session)).branch(branch))
        if file is None:
            raise SessionError('it is not enhanced')
        return FileResponse(file, filename=None if watch else f'{session}-{branch}-enhanced.mp4', headers=NEVER)

    return Guard(mounted(app, studio, max_bytes), loopback=loopback, users=users)


def serve(app: Guard, listening: socket.socket) -> None:
    """Serves the page until a signal comes."""
    config = uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=1, server_header=False)
    uvicorn.Server(config).run([listening])


def _split(file):
    """(id, ending) of the name of a file that is kept of a chunk."""
    id, ending = Path(file).stem, Path(file).suffix
    if ending not in ('.mp4', '.png'):
        raise SessionError('there is no such file')
    return id, ending
