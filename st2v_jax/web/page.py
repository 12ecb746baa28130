"""The page itself: fields and buttons by gradio, around a part that `assets/page.js` draws."""

import html
from collections.abc import Callable
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from st2v_jax import devices
from st2v_jax.errors import BadInput
from st2v_jax.video_io.pictures import ENDINGS as PICTURES
from st2v_jax.video_io.start import read_start
from st2v_jax.web.studio import FPS, LONGEST_PROMPT, MOST_FRAMES, Studio
from st2v_jax.web.uploads import CLIPS, check_upload

HEAD = '<link rel="stylesheet" href="/st2v/page/page.css"><script src="/st2v/page/page.js" defer></script>'
STAGE = """
<div id="stage">
  <div id="empty"><h2>Nothing here yet</h2><p>Say in a sentence what the video shows, and press <b>Make</b>.</p></div>
  <div id="shown">
    <div id="screen"><video id="player" muted playsinline controls></video><img id="preview" alt="preview"></div>
    <div id="state" role="status"></div>
    <div id="bar"><div></div></div>
    <ul id="notes"></ul>
    <div id="timeline" aria-label="chunks"></div>
    <div id="chunk"></div>
  </div>
</div>"""
TREE = '<div id="tree" aria-label="branches"></div>'


def mounted(app: FastAPI, studio: Studio, max_bytes: int) -> FastAPI:
    """The app with the page at its root; max_bytes: of an upload."""
    font = ['system-ui', 'sans-serif']
    theme = gr.themes.Default(font=font, font_mono=['ui-monospace', 'monospace'])
    return gr.mount_gradio_app(
        app, _blocks(studio, max_bytes), '/', theme=theme, head=HEAD, max_file_size=max_bytes,
        ssr_mode=False, show_error=True, footer_links=[], enable_monitoring=False, mcp_server=False, pwa=False,
    )  # fmt: skip


def _blocks(studio, max_bytes):
    example = 'a red ball bounces over a meadow'
    with gr.Blocks(title='st2v', analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(f'<header><h1>st2v</h1><p>{html.escape(_about(studio))}</p></header>')
        here = gr.Textbox(visible=False)  # what the browser shows, as page.js knows it
        went = gr.Textbox(visible=False)  # where to go
        with gr.Row():
            with gr.Column(scale=2, min_width=300, elem_id='left'):
                prompt = gr.Textbox(
                    label='Prompt', placeholder=example, lines=2, max_length=LONGEST_PROMPT, elem_id='prompt'
                )
                with gr.Row():
                    frames = gr.Number(48, label='Frames', precision=0, minimum=1, maximum=MOST_FRAMES, min_width=100)
                    seed = gr.Number(0, label='Seed', precision=0, minimum=0, maximum=2**32 - 1, min_width=100)
                with gr.Accordion('Start from a clip or a picture', open=False):
                    start = gr.File(show_label=False, file_types=[*CLIPS, *PICTURES], elem_id='start', height=120)
                    gr.HTML(f'<p class="hint">The video goes on after a clip, or begins with a picture; at most '
                            f'{max_bytes / 2**20:.0f} MB.</p>')  # fmt: skip
                if studio.model.tokenizer.words:
                    with gr.Accordion('Words that the model knows', open=False):
                        gr.HTML(f'<p class="hint">{html.escape(" ".join(studio.model.tokenizer.words))}</p>')
                make = gr.Button('Make', variant='primary', elem_id='make')
                gr.HTML('<h3>Videos</h3><div id="videos"></div>', apply_default_css=False)
            with gr.Column(scale=5, min_width=300, elem_id='right'):
                gr.HTML(STAGE, apply_default_css=False)
                with gr.Row(elem_id='buttons'):
                    pause = gr.Button('Pause', size='md', min_width=80, elem_id='pause')
                    go_on = gr.Button('Go on', size='md', min_width=80, elem_id='go-on')
                    enhance = gr.Button('Enhance', size='md', min_width=80, elem_id='enhance')
                    gr.HTML('<div id="links"></div>', elem_id='links-box', apply_default_css=False)
                with gr.Row(elem_id='next'):
                    further = gr.Textbox(
                        label='Another prompt from the next chunk on', placeholder='as before', scale=4, min_width=200,
                        max_length=LONGEST_PROMPT, elem_id='further',
                    )  # fmt: skip
                    longer = gr.Textbox(label='Frames in all', placeholder='as before', min_width=130, elem_id='longer')
                    change = gr.Button('Change', size='md', min_width=100, elem_id='change')
                with gr.Row(elem_id='from-chunk'):
                    other = gr.Textbox(
                        label='Another prompt from this chunk on', placeholder='in a branch of its own', scale=4,
                        min_width=200, max_length=LONGEST_PROMPT, elem_id='other',
                    )  # fmt: skip
                    branch = gr.Button('Branch', size='md', min_width=100, elem_id='branch')
                    reroll = gr.Button('Re-roll', size='md', min_width=100, elem_id='reroll')
                gr.HTML(TREE, apply_default_css=False)

        _on(studio, make, _making(studio, max_bytes), [here, prompt, frames, seed, start], went)
        _on(studio, pause, lambda name, branch, chunk: studio.pause(name, branch), [here], went)
        _on(studio, go_on, lambda name, branch, chunk: studio.go_on(name, branch), [here], went)
        _on(studio, change, _changing(studio), [here, further, longer], went)
        _on(studio, enhance, lambda name, branch, chunk: studio.enhance(name, branch), [here], went)
        _on(studio, reroll, _rerolling(studio), [here], went)
        _on(studio, branch, _branching(studio), [here, other], went)
    return page


def _on(studio, button, does: Callable, inputs, went):
    """Connects a button: does(session, branch, chunk, *fields) returns (session, branch) to go to, or None to stay."""

    def work(here, *fields):
        try:
            name, branch, chunk = here.split('/')
            to = does(name, branch, int(chunk), *fields)
        except Exception as error:
            raise gr.Error(html.escape(studio.told(error)), duration=12, print_exception=False) from error
        return '/'.join(to) if to else ''

    # page.js says what is shown, whatever the hidden field held
    js = '(here, ...fields) => [window.st2v.here(), ...fields]'
    button.click(work, inputs, [went], js=js, show_progress='hidden', api_visibility='private').success(
        None, [went], None, js='(went) => window.st2v.go(went)'
    )


def _making(studio, max_bytes):
    def make(name, branch, chunk, prompt, frames, seed, file):
        for note in studio.notes_on(prompt):
            gr.Warning(html.escape(note))
        return studio.make(
            prompt, _whole(frames, 'frames'), _whole(seed, 'a seed'), _start(studio, file, max_bytes)
        ), 'main'

    return make


def _start(studio, file, max_bytes):
    """What a video starts from, of a file that was sent."""
    if file is None:
        return None
    contract = studio.model.config.contract
    if 'cam' not in studio.model.params:
        raise BadInput('this model makes one chunk from text alone: it has no CAM')
    try:
        check_upload(file, max_bytes)
        start = read_start(file, contract.frame_size, fps=FPS, memory=contract.memory)
    except OSError as error:  # by the name that the user gave it
        raise BadInput(str(error).replace(str(file), Path(file).name)) from error
    for note in start.notes:
        gr.Info(html.escape(note.replace(str(file), Path(file).name)))
    return start


def _changing(studio):
    def change(name, branch, chunk, prompt, frames):
        for note in studio.notes_on(prompt) if prompt.strip() else ():
            gr.Warning(html.escape(note))
        studio.go_on(name, branch, prompt, _whole(frames, 'frames') if str(frames or '').strip() else None)

    return change


def _rerolling(studio):
    return lambda name, branch, chunk: (name, studio.reroll(name, branch, chunk))


def _branching(studio):
    def branch_off(name, branch, chunk, prompt):
        for note in studio.notes_on(prompt):
            gr.Warning(html.escape(note))
        return name, studio.fork(name, branch, chunk, prompt)

    return branch_off


def _whole(value, what):
    try:
        number = int(str(value))
    except ValueError:
        raise BadInput(f'{what}: a whole number is needed, not {str(value)[:20]!r}') from None
    if number < 0:
        raise BadInput(f'{what}: a number of at least 0 is needed, not {number}')
    return number


def _about(studio):
    height, width = studio.model.config.frame_size
    device = devices.current()
    place = 'CPU' if device.platform == 'cpu' else device.device_kind
    return f'{width}x{height} pixels, {FPS:g} frames per second, on {place}'
