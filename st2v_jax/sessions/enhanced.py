"""The enhanced videos of a session: nodes of their own, for refinement couples all chunks of a video both ways.

Each lies in `enhanced/ID/`, where the id is the hash of the branch's last chunk, its length and all else that enhanced
frames depend on. The folder is what `enhance` keeps: after a kill it goes on with the span of chunks that it was in,
and when it is complete its frames are only decoded.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from st2v_jax.errors import SessionError
from st2v_jax.models.contract import Contract
from st2v_jax.refinement import kept
from st2v_jax.refinement.enhancer import Enhancer, enhance, made_of
from st2v_jax.refinement.sdedit import RefineSettings
from st2v_jax.sessions import fingerprint
from st2v_jax.sessions.branches import Branch
from st2v_jax.sessions.session import Session
from st2v_jax.storage.text import read_object
from st2v_jax.streaming.prompt_schedule import PromptSchedule, first_new_frame

FOLDER = 'enhanced'


class Node(NamedTuple):
    """The enhancement of a branch.

    Attributes:
      prompts: of the whole video.
      leaf: the id of its last chunk and the number of its frames, 'ID/N', which says what is enhanced.
      made_of: what else determines its frames, as JSON values.
      folder: where it lies.
      contract: by which the chunks of the branch are counted.
    """

    prompts: PromptSchedule
    leaf: str
    made_of: dict[str, Any]
    folder: Path
    contract: Contract


def node(
    session: Session,
    name: str,
    enhancer: Enhancer,
    settings: RefineSettings,
    *,
    seed: int = 0,
    negative_prompt: str = '',
    profile: str | None = None,
) -> Node:
    """The enhancement of a branch that is made; the arguments are those of `enhance`.

    Raises SessionError if chunks of the branch are not made yet.
    """
    branch = session.branch(name)
    contract = branch.counted(session.model.config.contract)
    if missing := session.missing(branch):
        raise SessionError(f'{missing} chunks of {name} are not made yet: an enhanced video is made of all of them')
    prompts = prompts_of(branch, contract)
    leaf = f'{branch.chunks[contract.chunks(branch.num_frames) - 1]}/{branch.num_frames}'
    known = made_of(enhancer, prompts, negative_prompt, contract, profile or enhancer.config.profile, seed, settings)
    folder = session.folder / FOLDER / fingerprint.digest({'video': leaf} | known)
    return Node(prompts, leaf, known, folder, contract)


def enhance_branch(
    session: Session,
    name: str,
    enhancer: Enhancer,
    *,
    seed: int = 0,
    negative_prompt: str = '',
    profile: str | None = None,
    settings: RefineSettings | None = None,
    **options: Any,
) -> Iterator[np.ndarray]:
    """The enhanced frames of a branch, as from `enhance`; `options` are decode_frames and on_step.

    Called again, it goes on where an earlier call ended. Within `about.writing(folder)`, as what else writes.
    """
    profile = profile or enhancer.config.profile
    settings = settings or enhancer.settings(variant=profile)
    made = node(session, name, enhancer, settings, seed=seed, negative_prompt=negative_prompt, profile=profile)
    return enhance(
        enhancer,
        session.frames(name),
        made.prompts,
        seed=seed,
        negative_prompt=negative_prompt,
        profile=profile,
        **where(made),
        **options,
        **dataclasses.asdict(settings),
    )


def where(node: Node) -> dict[str, Any]:
    """The arguments of `enhance` by which it keeps its work in the node's folder, which is made if there is none."""
    node.folder.parent.mkdir(exist_ok=True)
    return {'contract': node.contract, 'folder': node.folder, 'keep': node.leaf}


def prompts_of(branch: Branch, contract: Contract) -> PromptSchedule:
    """The prompts of a branch as one schedule.

    Where recipes follow each other, a chunk within a blend has the prompt that it has more of.
    """
    if len(branch.recipes) == 1:
        return branch.recipes[0].prompts
    texts = []
    for number in range(contract.chunks(branch.num_frames)):
        prompt, following, share = branch.recipe(number).prompts.of_chunk(contract, number)
        texts.append(following if share >= 0.5 else prompt)
    changes = [number for number in range(1, len(texts)) if texts[number] != texts[number - 1]]
    return PromptSchedule(texts[0], tuple((first_new_frame(contract, number), texts[number]) for number in changes))


def prune(session: Session) -> int:
    """Removes the enhancements of videos that no branch is any more; returns how many."""
    chunks = {id for name in session.names() for id in session.branch(name).chunks}
    gone = 0
    for file in sorted(Path(session.folder, FOLDER).glob(f'*/{kept.MADE_OF}')):
        leaf, _, _ = str(read_object(file).get('video')).partition('/')
        if leaf not in chunks:
            kept.remove(file.parent)
            gone += 1
    return gone
