"""The page in a real Chromium, with real clicks, and its server in a process of its own."""

import base64
import contextlib
import http.client
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st2v_jax import video_io
from st2v_jax.sessions.session import Session

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
MISSING = [name for name in ('gradio', 'playwright') if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('unoptimised'),
    pytest.mark.skipif(bool(MISSING) or CHROMIUM is None, reason=f'needs {", ".join(MISSING) or "Chromium"}'),
]
PROMPT, OTHER = 'a red ball moves left', 'a blue star over sand'
USER, PASSWORD = 'ann', 'a password'
MINUTES = 180_000  # milliseconds that compiling may take on a machine that has other work


class Server:
    """`st2v web` of one folder, which can be killed and started again at the same port."""

    def __init__(self, folder, weights):
        self.folder, self._weights, self.port, self._process = folder, weights, 0, None

    def start(self):
        options = ['--folder', self.folder, '--weights', self._weights, '--port', self.port, '--max-upload', 1]
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'st2v_jax', 'web', *map(str, options)],
            env=os.environ | {'ST2V_AUTH': f'{USER}:{PASSWORD}'}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        for line in self._process.stdout:
            if found := re.match(r'the page is at (http://127\.0\.0\.1:(\d+)) until Ctrl-C', line):
                self.address, self.port = found[1], int(found[2])
                return self
        raise AssertionError(f'the server ended with {self._process.wait()}')

    def stop(self, number):
        """Ends the server by a signal; returns its exit code."""
        self._process.send_signal(number)
        self._process.stdout.close()
        return self._process.wait(60)

    def get(self, path, password=PASSWORD):
        """(status, body) of a path that is sent as it is, without a browser that would shorten it."""
        secret = base64.b64encode(f'{USER}:{password}'.encode()).decode()
        with contextlib.closing(http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)) as connection:
            connection.request('GET', path, headers={'authorization': f'Basic {secret}'})
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture(scope='module')
def server(tiny_folder, tmp_path_factory):
    running = Server(tmp_path_factory.mktemp('web') / 'videos', tiny_folder).start()
    yield running
    assert running.stop(signal.SIGTERM) == 143


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield opened
        opened.close()


@pytest.fixture
def page(server, browser):
    """open(query='', **options) -> a page of a browser of its own. Nothing may be asked of another place."""
    with contextlib.ExitStack() as stack:
        asked, errors = set(), []

        def open(query='', **options):
            credentials = {'username': USER, 'password': PASSWORD}
            context = browser.new_context(http_credentials=credentials, **options)
            stack.callback(context.close)
            shown = context.new_page()
            shown.set_default_timeout(MINUTES)
            shown.on('request', lambda request: asked.add(request.url))
            shown.on('pageerror', lambda error: errors.append(str(error)))
            shown.goto(f'{server.address}/{query}')
            shown.wait_for_selector('body[data-shows]')
            return shown

        yield open
        assert not errors
        hosts = {url.split('/')[2] for url in asked if not url.startswith(('data:', 'blob:'))}
        assert hosts == {f'127.0.0.1:{server.port}'}


def make(page, prompt, frames):
    page.fill('#prompt textarea', prompt)
    page.get_by_label('Frames', exact=True).fill(str(frames))
    page.click('#make')
    page.wait_for_selector('body[data-shows=video]')


def until(page, doing):
    page.wait_for_selector(f'body[data-doing={doing}]')


def made(page):
    return page.locator('.cell.made').count()


def toast(page):
    return page.locator('.toast-body').last.inner_text()


def name(page):
    return re.search(r'session=([\w-]+)', page.url)[1]


def test_a_video_is_made_watched_changed_rerolled_enhanced_and_downloaded(server, page, tmp_path):
    shown = page()
    assert shown.locator('#empty').is_visible() and not shown.locator('#shown').is_visible()
    make(shown, PROMPT, 2000)
    shown.wait_for_selector('.cell.made')  # it plays while it grows
    shown.wait_for_function('document.getElementById("player").currentTime > 0')
    assert shown.locator('.cell.planned').count() and shown.locator('#bar').is_visible()
    shown.click('#pause')
    until(shown, 'stopped')

    session = Session(server.folder / name(shown))
    before = session.branch().chunks
    first, frames = len(before), 16 + 8 * (len(before) + 1)
    shown.locator('#further textarea, #further input').fill(OTHER)  # another prompt from the next chunk on
    shown.locator('#longer textarea, #longer input').fill(str(frames))
    shown.click('#change')
    until(shown, 'done')
    branch = session.branch()
    told = [branch.recipe(number).prompts.prompt for number in range(len(branch.chunks))]
    assert told == [PROMPT] * first + [OTHER] * 2 and branch.chunks[:first] == before
    shown.wait_for_function(f'document.getElementById("player").duration >= {frames / 8}')
    heights = shown.evaluate('[...document.querySelectorAll(".cell.made img")].map((image) => image.naturalHeight)')
    assert heights == [32] * (first + 2), 'an X-T slice under each chunk'

    shown.click(f'.cell[data-chunk="{first}"]')
    shown.wait_for_selector(f'#chunk >> text=Chunk {first}')
    shown.click('#reroll')
    again = f'main-{first}-seed1'
    shown.wait_for_selector(f'.branch[data-branch={again}][aria-current=true]')
    until(shown, 'done')
    other = session.branch(again)
    assert other.chunks[:first] == before and other.chunks[first] != branch.chunks[first]

    with shown.expect_download() as got:
        shown.click('#download')
    got.value.save_as(tmp_path / 'got.mp4')
    assert got.value.suggested_filename == f'{name(shown)}-{again}.mp4'
    assert video_io.read_video(tmp_path / 'got.mp4').shape == (frames, 32, 32, 3)
    assert video_io.read_metadata(tmp_path / 'got.mp4')['session']['chunks'] == [*other.chunks]

    shown.click('.branch[data-branch=main]')  # the tree leads back
    shown.wait_for_selector('.branch[data-branch=main][aria-current=true]')
    shown.reload()
    shown.wait_for_selector('.branch[data-branch=main][aria-current=true]')
    shown.click('#enhance')
    until(shown, 'enhancing')
    shown.wait_for_selector('#download-enhanced')
    with shown.expect_download() as got:
        shown.click('#download-enhanced')
    got.value.save_as(tmp_path / 'large.mp4')
    assert len(video_io.read_video(tmp_path / 'large.mp4')) == frames


def test_a_server_that_is_killed_loses_nothing_and_the_page_comes_back(server, page):
    shown = page()
    make(shown, PROMPT, 2000)
    shown.wait_for_selector('.cell.made >> nth=2')
    server.stop(signal.SIGKILL)
    shown.wait_for_selector('body[data-away=yes]')
    branch = Session(server.folder / name(shown)).branch()
    assert 3 <= len(branch.chunks) < 249 and 'does not answer' in shown.locator('#state').inner_text()
    server.start()
    until(shown, 'stopped')
    assert made(shown) == len(branch.chunks)
    shown.click('#go-on')
    shown.wait_for_selector(f'.cell.made >> nth={len(branch.chunks)}')
    shown.click('#pause')
    until(shown, 'stopped')
    assert Session(server.folder / name(shown)).branch().chunks[: len(branch.chunks)] == branch.chunks


def test_two_browsers_take_turns(server, page):
    one, two = page(), page()
    make(one, PROMPT, 400)
    make(two, OTHER, 24)
    until(two, 'done')
    assert one.locator('.cell.planned, .cell.works').count(), 'a long video does not keep a short one waiting'
    assert two.locator('.video').count() == one.locator('.video').count()
    one.click('#pause')
    until(one, 'stopped')


def test_a_video_starts_from_a_picture_and_strange_files_are_refused(server, page, tmp_path):
    playlist, large, picture = (tmp_path / file for file in ('evil.mp4', 'large.mp4', 'red.png'))
    playlist.write_text('#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n')
    large.write_bytes(b'\0\0\0\x20ftypisom' + bytes(2**21))
    Image.fromarray(np.full((48, 64, 3), (255, 0, 0), np.uint8)).save(picture)
    before = sorted(server.folder.iterdir())
    for file, told in ((playlist, 'evil.mp4 is not what its ending says'), (large, 'size')):
        shown = page()
        shown.click('text=Start from a clip or a picture')
        shown.fill('#prompt textarea', PROMPT)
        shown.set_input_files('#start input[type=file]', file)
        if file is playlist:
            shown.wait_for_selector('#start >> text=evil')
            shown.click('#make')
        shown.wait_for_selector('.toast-body')
        assert told in toast(shown), toast(shown)
    assert sorted(server.folder.iterdir()) == before
    shown = page()
    shown.click('text=Start from a clip or a picture')
    shown.set_input_files('#start input[type=file]', picture)
    shown.wait_for_selector('#start >> text=red')
    make(shown, PROMPT, 16)
    until(shown, 'done')
    session = Session(server.folder / name(shown))
    assert session.branch().given is not None
    assert (session.given(session.branch()).frames[0, 16] > (250, -1, -1)).all()


def test_what_is_written_is_shown_as_text(server, page):
    shown, asked = page(), []
    shown.on('request', lambda request: asked.append(request.url))
    shown.fill('#prompt textarea', '<img src=x onerror=alert(1)>')
    shown.click('#make')
    shown.wait_for_selector('.toast-body')
    assert 'understands nothing of "<img src=x onerror=alert(1)>"' in toast(shown)
    assert f'{server.address}/x' not in asked


def test_no_path_leads_out_of_the_folder(server, tmp_path):
    (server.folder.parent / 'secret.mp4').write_text('secret')
    (server.folder / 'secret').mkdir(exist_ok=True)
    (server.folder / 'secret' / 'main.mp4').write_text('secret')  # in the folder, but not of a session
    up = (
        '..',
        '%2e%2e',
        '..%2f..',
        '%2e%2e%2f',
        '....//',
        '..%5c',
        '%00',
        str(server.folder.parent).replace('/', '%2f'),
    )
    tried = [
        path.format(each)
        for each in up
        for path in ('/st2v/download/{}/secret.mp4', '/st2v/download/{}/main', '/st2v/chunk/{}/main/0/secret.mp4',
                     '/st2v/given/{}/main/secret.mp4', '/st2v/enhanced/{}/secret', '/st2v/enhanced/secret/{}',
                     '/st2v/page/{}/page.py', '/st2v/page/{}', '/assets/{}/page.py', '/static/{}/x',
                     '/gradio_api/file={}/secret.mp4')
    ]  # fmt: skip
    for path in (*tried, f'/gradio_api/file={server.folder.parent}/secret.mp4', '/st2v/download/secret/main'):
        status, body = server.get(path)
        assert status in (403, 404, 422) and body != b'secret', (path, status, body[:200])
    for session in ('..', '/etc', 'secret'):
        status, body = server.get(f'/st2v/look?session={session}')
        assert status == 200 and 'there is no video' in json.loads(body)['error']
    assert server.get('/st2v/look', password='wrong')[0] == 401


@pytest.mark.parametrize('width', [1280, 400])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_the_page_fits_and_follows_light_and_dark(server, page, width, scheme):
    shown = page(viewport={'width': width, 'height': 900}, color_scheme=scheme)
    shown.click('.video >> nth=-1')
    shown.wait_for_selector('.cell.made')
    assert shown.evaluate('document.documentElement.scrollWidth') <= width
    picture = shown.screenshot()
    light = np.asarray(Image.open(io.BytesIO(picture)).convert('L'))[:8, :8].mean() > 128
    assert light == (scheme == 'light')


def test_an_address_of_a_video_that_is_gone_is_an_error_in_words(page):
    shown = page('?session=gone&branch=main')
    shown.wait_for_selector('body[data-shows=error]')
    assert "there is no video 'gone'" in shown.locator('#state').inner_text()
    assert not shown.locator('#buttons').is_visible()


def test_a_port_that_is_taken_is_one_line(server, tiny_folder, tmp_path):
    command = [sys.executable, '-m', 'st2v_jax', 'web', '--port', str(server.port), '--folder', str(tmp_path / 'x')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and not Path(tmp_path / 'x').exists()
    assert done.stderr == f'error: cannot listen at 127.0.0.1, port {server.port}: Address already in use\n'
