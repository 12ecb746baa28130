"""What the page shows, as JSON values: read from disk each time, with what the queue is doing."""

from typing import Any

from st2v_jax.errors import SessionError
from st2v_jax.sessions.branches import Branch
from st2v_jax.sessions.session import Session
from st2v_jax.web.studio import FPS, Studio


def look(studio: Studio, name: str, branch: str) -> dict[str, Any]:
    """All videos, and one branch of one of them; name: of its session, '' for none."""
    videos = [_in_list(studio, name) for name in studio.names()]
    if not name:
        return {'videos': videos, 'fps': FPS}
    try:
        studio.watch(name)
        session = Session(studio.place(name))
        there = {name: session.branch(name) for name in session.names()}
        if branch not in there:
            branch = next(iter(there), branch)
        shown = _branch(studio, session, there, session.branch(branch))
    except SessionError as error:
        return {'videos': videos, 'fps': FPS, 'error': studio.told(error)}
    tree = [_in_tree(studio, name, there, each) for each in there.values()]
    height, width = session.about['frame_size']
    return {'videos': videos, 'fps': FPS, 'size': [height, width], 'tree': tree, 'branch': shown}


def _in_list(studio, name):
    try:
        session = Session(studio.place(name))
        there = [session.branch(each) for each in session.names() or ['main']]
    except SessionError as error:
        return {'name': name, 'prompt': studio.told(error), 'doing': 'failed'}
    doing = [_doing(studio, name, branch) for branch in there]
    first = next((each for each in ('making', 'enhancing', 'waiting', 'failed') if each in doing), doing[0])
    return {'name': name, 'prompt': there[0].recipes[0].prompts.prompt, 'doing': first}


def _doing(studio, name, branch):
    """making, enhancing, pausing, waiting, failed, stopped or done."""
    found = studio.turns.find((name, branch.name))
    if found is not None:
        job, before = found
        if job.stopped:
            return 'pausing'
        if before:
            return 'waiting'
        return 'enhancing' if job.progress is not None and job.progress.chunk is None else 'making'
    if len(branch.chunks) >= _planned(studio, branch):
        return 'done'
    return 'stopped' if studio.turns.failure((name, branch.name)) is None else 'failed'


def _planned(studio, branch):
    return branch.counted(studio.model.config.contract).chunks(branch.num_frames)


def _in_tree(studio, name, there, branch):
    """A branch as a row of the tree: its parent is the first before it that has most chunks in common."""
    shared, parent = 0, None
    for other in there.values():
        if other is branch:
            break
        count = _common(other, branch)
        if parent is None or count > shared:
            shared, parent = count, other.name
    return {
        'name': branch.name,
        'parent': parent,
        'shared': shared,
        'chunks': len(branch.chunks),
        'planned': _planned(studio, branch),
        'asked': branch.asked,
        'doing': _doing(studio, name, branch),
    }


def _common(one: Branch, other: Branch) -> int:
    """How many chunks two branches have in common, at their beginning."""
    if one.given != other.given:
        return 0
    count = 0
    for left, right in zip(one.chunks, other.chunks):
        if left != right:
            break
        count += 1
    return count


def _branch(studio, session, there, branch):
    """A branch with its chunks, and with the job that works on it."""
    name, contract = session.folder.name, branch.counted(studio.model.config.contract)
    journal = session.journal()
    made = {entry['chunk']: entry for entry in journal if isinstance(entry.get('chunk'), str)}
    drawn = {(entry['branch'], entry['number']): entry['draws'][entry['kept']] for entry in journal if 'kept' in entry}
    chunks = []
    for number in range(max(_planned(studio, branch), len(branch.chunks))):
        recipe = branch.recipe(number)
        text = recipe.prompts.of_chunk(contract, number)
        id = _id(branch, number)
        makers = [other.name for other in there.values() if id is not None and _id(other, number) == id]
        chunks.append({
            'id': id,
            'frames': contract.stride if number else contract.opening,
            'prompt': text.prompt,
            'seed': recipe.seed,
            'seconds': made.get(id, {}).get('seconds'),
            'scores': next((drawn[maker, number] for maker in makers if (maker, number) in drawn), None),
        })  # fmt: skip
    shown = {
        'name': branch.name,
        'num_frames': branch.num_frames,
        'given': {'id': branch.given.id, 'frames': branch.given.frames} if branch.goes_on else None,
        'chunks': chunks,
        'doing': _doing(studio, name, branch),
        'enhanced': studio.enhanced_file(name, branch) is not None,
        'error': studio.turns.failure((name, branch.name)),
    }
    if found := studio.turns.find((name, branch.name)):
        job, before = found
        progress = None if job.progress is None else job.progress._asdict()
        preview = None if job.preview is None else job.preview[0]
        shown |= {'before': before, 'progress': progress, 'preview': preview, 'notes': job.notes}
    return shown


def _id(branch, number):
    """The id of a chunk; None if it is not made."""
    return branch.chunks[number] if number < len(branch.chunks) else None
