"""Draws the figure of the method, method.svg beside this file: `python docs/images/method.py`.

Text stays text, and a light panel of its own keeps the figure readable on any background.
"""

import math
import zlib
from pathlib import Path

WIDTH, HEIGHT = 900, 536
LEFT, RIGHT = 34, 866  # of everything that lies along the time axis
PITCH, CELL = 26, 24  # from frame to frame of the streaming stage, and the side of one
CHUNK, MEMORY = 16, 8  # frames of a chunk, and how many of the previous chunk it is conditioned on
LENGTH, OVERLAP, REFINED = 24, 8, 56  # frames of a Refiner's chunk, shared by neighbours, and of the video drawn here
CUTS = ((3, 6), (7, 2), (1, 4), (5, 8))  # what one run of the random cuts may look like, step by step

INK, GREY, PANEL, EDGE = '#1f2328', '#59636e', '#fbfcfd', '#d1d9e0'
BLUE, ORANGE = '#0969da', '#bc4c00'  # short-term and long-term memory
CHUNKS = (('#7c4dcc', '#e6dcf7'), ('#1a7f64', '#d3efe5'), ('#b3386f', '#f8dce8'))  # dark and light, chunk by chunk

STYLE = f"""
text {{ font: 13px -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif; fill: {INK} }}
.title {{ font-weight: 600; font-size: 15px }}
.note {{ fill: {GREY}; font-size: 12.5px }}
.step {{ fill: #fff; font-size: 10.5px }}
.short {{ fill: {BLUE} }}
.long {{ fill: {ORANGE} }}
.bold {{ font-weight: 600 }}
"""


def tag(name: str, text: str = '', **attributes) -> str:
    """An SVG element; underscores in attribute names stand for hyphens."""
    shown = ''.join(f' {key.rstrip("_").replace("_", "-")}="{number(value)}"' for key, value in attributes.items())
    return f'<{name}{shown}>{text}</{name}>' if text else f'<{name}{shown}/>'


def number(value) -> str:
    """Numbers with one decimal at most, so that the file is the same wherever it is drawn."""
    return f'{round(value, 1):g}' if isinstance(value, int | float) else value


def write(x: float, y: float, text: str, kind: str = '', **attributes) -> str:
    """One line of text; its baseline begins at (x, y)."""
    return tag('text', text, x=x, y=y, class_=kind, **attributes)


def bold(text: str) -> str:
    """The words that a line begins with."""
    return tag('tspan', text, class_='bold')


def box(x: float, y: float, width: float, height: float, **attributes) -> str:
    """A rectangle."""
    return tag('rect', x=x, y=y, width=width, height=height, **attributes)


def arrow(points: str, colour: str) -> str:
    """A line with its head at the last point."""
    head = {BLUE: 'blue', ORANGE: 'orange', GREY: 'grey'}[colour]
    return tag('path', d=points, fill='none', stroke=colour, stroke_width=2, marker_end=f'url(#{head})')


def at(frame: float) -> float:
    """Where a frame of the streaming stage begins, counted from 0."""
    return LEFT + PITCH * frame


def picture(frame: int, y: float) -> str:
    """A frame of the example: a ball bounces over a meadow."""
    x = at(frame)
    across = 6 + 12 * (0.5 - 0.5 * math.cos(frame / 31 * 2 * math.pi))
    height = 14 - 9 * abs(math.sin(frame * math.pi / 9 + 0.4))
    ball = tag('circle', cx=x + across, cy=y + height, r=3.4, fill='#d1242f')
    return tag('use', href='#meadow', x=x, y=y) + ball


def chunk(first: int, y: float, drawn_again: int) -> list[str]:
    """The pictures of a chunk and the edge around them; pale are the frames that it draws again."""
    again = ''.join(picture(first + i, y) for i in range(drawn_again))
    new = [picture(first + i, y) for i in range(drawn_again, CHUNK)]
    edge = box(at(first) - 3, y - 3, PITCH * CHUNK + 4, CELL + 6, rx=5, fill='none', stroke='#8c959f', stroke_width=1.2)
    return [tag('g', again, opacity=0.38)] * bool(again) + new + [edge]


def memory(first: int, top: float, bottom: float) -> str:
    """CAM: the frames from `first` on go from the chunk above to the one below."""
    x, width = at(first) - 1, PITCH * MEMORY
    return box(x, top, width, bottom - top, fill=BLUE, opacity=0.1) + ''.join(
        arrow(f'M{number(x + share * width)} {top + 3}V{bottom - 7}', BLUE) for share in (0.06, 0.94)
    )


def streaming() -> list[str]:
    """The first chunk and two that follow it."""
    one, two, three = 52, 146, 240
    prompt = '“a red ball bounces over a meadow”'
    parts = [
        write(LEFT, 34, '1  First chunk', 'title'),
        write(156, 34, 'The Video-LDM draws 16 frames from the prompt alone.', 'note'),
        *chunk(0, one, 0),
        box(590, one - 3, 276, CELL + 6, rx=15, fill='#fff', stroke=EDGE),
        write(728, one + 16.5, prompt, text_anchor='middle'),
        arrow(f'M588 {one + 12}H{number(at(CHUNK) + 10)}', GREY),
        write(536, one + 6, 'prompt', 'note', text_anchor='middle'),
        memory(CHUNK - MEMORY, one + CELL + 5, two - 4),
        *chunk(MEMORY, two, MEMORY),
        memory(CHUNK, two + CELL + 5, three - 4),
        *chunk(CHUNK, three, MEMORY),
    ]
    # short-term memory
    for first, top in ((CHUNK - MEMORY, one), (CHUNK, two)):
        x = at(first) + 28
        parts += [
            write(x, top + 54, f'{bold("CAM")}: the last 8 frames', 'short'),
            write(x, top + 71, 'short-term memory', 'short'),
        ]
    # long-term memory
    anchor = LEFT + CELL / 2
    edge = box(LEFT - 1, one - 1, CELL + 2, CELL + 2, rx=3, fill='none', stroke=ORANGE, stroke_width=2.5)
    parts.append(edge)
    for row, first in ((two, MEMORY), (three, CHUNK)):
        y = row + CELL / 2
        parts.append(arrow(f'M{number(anchor)} {one + CELL + 2}V{y}H{number(at(first) - 12)}', ORANGE))
    parts += [
        write(60, two + 4, f'{bold("APM")}: the anchor frame', 'long'),
        write(60, two + 29, 'long-term memory', 'long'),
        write(676, two - 8, '2  Every later chunk', 'title'),
        write(676, two + 11, 'Prompt and two memories.', 'note'),
        write(676, two + 28, 'The first 8 frames (pale) are', 'note'),
        write(676, two + 45, 'drawn again, the last 8 new.', 'note'),
        write(60, three - 13, 'Every chunk costs the same,', 'note'),
        write(60, three + 4, 'so a video can be as long as you like.', 'note'),
    ]
    return parts


def specks(first: int, y: float, height: float) -> str:
    """Noise of a chunk: the same marks wherever the same frame is drawn."""
    path, width = '', (RIGHT - LEFT) / REFINED
    for frame in range(first, first + LENGTH):
        for i in range(7):
            hashed = zlib.crc32(f'frame {frame}, mark {i}'.encode())
            across, down = (hashed & 0xFFFF) / 0xFFFF, (hashed >> 16) / 0xFFFF
            x = LEFT + 1 + width * frame + across * (width - 4)
            path += f'M{number(x)} {number(y + 2.5 + down * (height - 7.5))}h2.5v2.5h-2.5z'
    return path


def refinement() -> list[str]:
    """Three overlapping chunks, their noise, and the cuts of four denoising steps."""
    width, stride = (RIGHT - LEFT) / REFINED, LENGTH - OVERLAP
    x = lambda frame: LEFT + width * frame
    upper, lower, strips, thick = 334, 366, 408, 15
    parts = [
        tag('path', d=f'M{LEFT} 290H{RIGHT}', stroke=EDGE, stroke_width=1),
        write(LEFT, 318, '3  Refinement', 'title'),
        write(
            156,
            318,
            'The Refiner adds noise to the enlarged video and removes it, in chunks of 24 frames that share 8.',
            'note',
        ),
    ]
    for begins in (stride, 2 * stride):
        parts.append(
            box(x(begins), upper - 5, width * OVERLAP, strips + 4 * 18 - upper + 6, fill='#818b98', opacity=0.14)
        )
    for i, (dark, light) in enumerate(CHUNKS):
        y = lower if i % 2 else upper
        parts += [
            box(x(i * stride), y, width * LENGTH, 26, rx=4, fill=light, stroke=dark, stroke_width=1.2),
            tag('path', d=specks(i * stride, y, 26), fill=dark, opacity=0.75),
        ]
    parts += [
        write(LEFT, lower + 11, f'{bold("Shared noise")} (eq. 7): the same', 'note'),
        write(LEFT, lower + 28, 'where neighbours overlap.', 'note'),
        write(RIGHT, lower + 11, 'A few chunks at a time: memory', 'note', text_anchor='end'),
        write(RIGHT, lower + 28, 'does not grow with the video.', 'note', text_anchor='end'),
    ]
    for step, cuts in enumerate(CUTS):
        y = strips + 18 * step
        borders = [0, stride + cuts[0], 2 * stride + cuts[1], REFINED]
        for (dark, _), begins, ends in zip(CHUNKS, borders[:-1], borders[1:], strict=True):
            parts.append(box(x(begins) + 0.5, y, width * (ends - begins) - 1, thick, rx=3, fill=dark, opacity=0.85))
        parts.append(write(LEFT + 8, y + 11.5, f'step {step + 1}', 'step'))
    blending = (
        f'{bold("Randomized blending")} (eq. 8): in every step a random cut in each overlap says where the left chunk',
        'ends and the right one begins, so that no seam stays in one place.',
    )
    return parts + [write(LEFT, strips + 92 + 17 * i, line, 'note') for i, line in enumerate(blending)]


def figure() -> str:
    """The whole file."""
    marker = ''.join(
        tag(
            'marker',
            tag('path', d='M0 0L8 4L0 8z', fill=colour),
            id=name,
            viewBox='0 0 8 8',
            refX=4,
            refY=4,
            markerWidth=8,
            markerHeight=8,
            markerUnits='userSpaceOnUse',
            orient='auto',
        )
        for name, colour in (('blue', BLUE), ('orange', ORANGE), ('grey', GREY))
    )
    meadow = tag(
        'g', box(0, 0, CELL, CELL, rx=2, fill='#cfe7fa') + box(0, 16, CELL, 8, rx=2, fill='#7fbf7b'), id='meadow'
    )
    what = 'StreamingT2V: a first chunk, later chunks with CAM and APM, and refinement with randomized blending'
    parts = [
        tag('title', what),
        tag('style', STYLE),
        tag('defs', marker + meadow),
        box(0.5, 0.5, WIDTH - 1, HEIGHT - 1, rx=12, fill=PANEL, stroke=EDGE),
        *streaming(),
        *refinement(),
    ]
    size = dict(width=WIDTH, height=HEIGHT, viewBox=f'0 0 {WIDTH} {HEIGHT}')
    return tag('svg', '\n' + '\n'.join(parts) + '\n', xmlns='http://www.w3.org/2000/svg', **size)


if __name__ == '__main__':
    Path(__file__).with_name('method.svg').write_text(figure() + '\n', 'utf-8')
