"""Who is let in, for which paths, and what an upload may be."""

import asyncio
import base64

import pytest

from st2v_jax.cli.run import main
from st2v_jax.cli.web import read_users
from st2v_jax.errors import BadInput, InputError
from st2v_jax.web.guard import Guard
from st2v_jax.web.uploads import check_upload


def status(path='/', *, loopback=True, users=(), **headers):
    """(status, headers) of the answer to a request."""

    async def app(scope, receive, send):
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        await send({'type': 'http.response.body', 'body': b''})

    sent = []

    async def send(message):
        sent.append(message)

    given = {'host': '127.0.0.1:7860'} | headers
    scope = {'type': 'http', 'path': path, 'headers': [(k.encode(), v.encode()) for k, v in given.items()]}
    asyncio.run(Guard(app, loopback=loopback, users=users)(scope, None, send))
    return sent[0]['status'], {name.decode(): value.decode() for name, value in sent[0]['headers']}


@pytest.mark.parametrize('path', ['/', '/config', '/assets/index.js', '/st2v/look', '/gradio_api/queue/join',
                                  '/gradio_api/upload', '/theme.css'])  # fmt: skip
def test_what_the_page_needs_is_let_through(path):
    code, headers = status(path)
    assert code == 200 and headers['content-security-policy'].startswith("default-src 'self'")


@pytest.mark.parametrize(
    'path',
    ['/gradio_api/file=/etc/passwd', '/file=/etc/passwd', '/gradio_api/proxy=http://example.org', '/etc/passwd',
     '/st2v/../../etc/passwd', '/gradio_api/vibe-edit', '/gradio_api/run/predict', '/monitoring', '/docs', '/login',
     '/assets/..\\x', '/gradio_api/stream/x', '/gradio_api/file/etc/passwd'],
)  # fmt: skip
def test_the_rest_of_the_server_is_not(path):
    assert status(path)[0] == 404


@pytest.mark.parametrize(
    'host', ['evil.example:7860', 'evil.example', '192.168.0.1:7860', '', '127.0.0.1.evil.example']
)
def test_a_page_for_this_machine_has_no_other_name(host):
    assert status(host=host)[0] == 403
    assert status(host=host, loopback=False)[0] == 200


@pytest.mark.parametrize('host', ['localhost:7860', '127.0.0.1', '[::1]:7860'])
def test_names_of_this_machine_are_taken(host):
    assert status(host=host)[0] == 200


@pytest.mark.parametrize('origin', ['http://evil.example', 'null', 'http://127.0.0.1:1', 'https://localhost'])
def test_other_pages_may_not_ask(origin):
    assert status(origin=origin)[0] == 403
    assert status(origin='http://127.0.0.1:7860')[0] == 200


def basic(text):
    return 'Basic ' + base64.b64encode(text.encode()).decode()


def test_a_password_lets_in_and_nothing_else_does():
    users = [('ann', 'a:b'), ('bob', 'ü')]
    for right in ('ann:a:b', 'bob:ü'):
        assert status(users=users, authorization=basic(right))[0] == 200
    for wrong in (basic('ann:ü'), basic('ann:'), basic(':'), basic('ann'), 'Basic %', 'Bearer x', '',
                  basic('ann:a:b').replace('Basic', 'Digest')):  # fmt: skip
        code, headers = status('/st2v/look', users=users, authorization=wrong)
        assert code == 401 and headers['www-authenticate'].startswith('Basic ')


def test_users_are_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv('ST2V_AUTH', raising=False)
    assert read_users(None) == []
    (tmp_path / 'users').write_text('ann:a:b\n\nbob:c\n')
    assert read_users(str(tmp_path / 'users')) == [('ann', 'a:b'), ('bob', 'c')]
    monkeypatch.setenv('ST2V_AUTH', 'eve:x')
    assert read_users(None) == [('eve', 'x')]
    for bad in ('eve', ':x', 'eve:', ''):
        (tmp_path / 'users').write_text(bad)
        with pytest.raises(BadInput, match='has lines such as name:password'):
            read_users(str(tmp_path / 'users'))


CLIP, PICTURE = b'\0\0\0\x20ftypisom' + bytes(20), b'\x89PNG\r\n\x1a\n' + bytes(20)


@pytest.mark.parametrize('name, data', [('a.mp4', CLIP), ('a.MOV', CLIP), ('a.png', PICTURE), ('a.gif', b'GIF89a')])
def test_uploads_are_clips_and_pictures(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    check_upload(tmp_path / name, 100)


@pytest.mark.parametrize(
    'name, data, told',
    [
        ('a.mp4', b'#EXTM3U\nfile:///etc/passwd', 'is not what its ending says'),
        ('a.mp4', b'ffconcat version 1.0\nfile x.mp4', 'is not what its ending says'),
        ('a.avi', b'RIFF\0\0\0\0WEBP', 'is not what its ending says'),
        ('a.png', CLIP, 'is not what its ending says'),
        ('a.gif', b'', 'is not what its ending says'),
        ('a.svg', b'<svg/>', 'neither a clip nor a picture'),
        ('a.m3u8', b'#EXTM3U', 'neither a clip nor a picture'),
        ('a', CLIP, 'neither a clip nor a picture'),
        ('a.mp4', CLIP + bytes(100), 'has 0.0 MB, and 0 MB are taken at most'),
    ],
)
def test_other_uploads_are_refused_before_they_are_decoded(tmp_path, name, data, told):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=told):
        check_upload(tmp_path / name, 100)


def test_without_the_extra_the_line_says_what_to_install(monkeypatch, capsys):
    found = __import__('importlib.util').util.find_spec
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None if name == 'gradio' else found(name))
    assert main(['web']) == 2
    assert capsys.readouterr().err == "error: gradio is not installed: pip install 'st2v_jax[web]'\n"
