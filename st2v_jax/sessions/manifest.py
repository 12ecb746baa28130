"""What a video of a session was made of: stored in its file, and enough to make it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st2v_jax.sessions import fingerprint
from st2v_jax.sessions.branches import Branch

if TYPE_CHECKING:
    from st2v_jax.sessions.session import Session


def metadata(session: Session, branch: Branch) -> dict[str, Any]:
    """The JSON values to store in the file of a branch: a function of its chunks, without times and places.

    'session' has what was asked for from which chunk on, the ids of the chunks, the hashes of the weights, and the
    programs that made the chunks; those that are not made yet are taken to be made by the programs of this run.
    """
    contract = branch.counted(session.model.config.contract)
    first, ids = branch.recipes[0], session.planned(branch)[: contract.chunks(branch.num_frames)]
    now, made_by = fingerprint.of_programs(session.decode_frames), []
    for number, id in enumerate(ids):
        programs = session.chunk(id).notes['programs'] if session.whole(id) else now
        if not made_by or made_by[-1]['programs'] != programs:
            made_by.append({'from': number, 'programs': programs})
    return {
        'prompt': first.prompts.prompt,
        'negative_prompt': first.negative_prompt,
        'seed': first.seed,
        'num_frames': branch.num_frames,
        'settings': first.to_dict()['settings'],
        'session': {
            **{name: session.about[name] for name in ('format', 'weights', 'dtype', 'frame_size')},
            **({} if branch.given is None else {'given': branch.given._asdict()}),
            'recipes': [recipe.to_dict() for recipe in branch.recipes],
            'chunks': ids,
            **({'draws': branch.draws[: len(ids)]} if branch.draws else {}),
            'made_by': made_by,
        },
    }
