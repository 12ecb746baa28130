"""How a video is sampled: the settings of a user, and what they mean for a chunk."""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from st2v_jax.diffusion.guidance import Guidance, text_and_anchor, text_guidance, text_with_anchor
from st2v_jax.diffusion.solvers import sampling_levels, solver_named
from st2v_jax.models.build import ModelConfig

# The sampling rules in which the paper and its released program differ.
PROFILES = {
    'paper': {'solver': 'ddim', 'eta': 0.0, 'first_solver': 'ddim', 'first_guidance': 7.5, 'guidance_text': 7.5},
    'release': {'solver': 'ddim', 'eta': 1.0, 'first_solver': 'dpmpp_2m', 'first_guidance': 9.0, 'guidance_text': 7.5},
}


class Sampling(NamedTuple):
    """How one chunk is sampled: what its programs are compiled for."""

    solver: str
    steps: int
    eta: float
    guidance: Guidance


@dataclass(frozen=True)
class SampleSettings:
    """How a video is sampled; hashable, because compiled programs depend on it. `settings_for` fills in a profile.

    Attributes:
      profile: 'paper' guides by eq. 12 with two scales; 'release' guides text and anchor together by the text scale.
      steps, solver, eta: of the streaming stage; solver is a name in `SOLVERS`, and eta is for DDIM.
      guidance_text, guidance_anchor: w_text and w_anchor of eq. 12.
      guidance_rescale: share by which the spread of guided predictions is pulled to the conditional one's; 0 is off.
      first_steps, first_solver, first_guidance: of the first chunk, whose DDIM steps add no noise.
      anchor_frame: which frame of the first chunk is the anchor of all later chunks.
      decode_frames: frames of a video decoded at once; bounds memory, changes nothing else.
    """

    profile: str = 'paper'
    steps: int = 20
    solver: str = 'ddim'
    eta: float = 0.0
    guidance_text: float = 7.5
    guidance_anchor: float = 7.5
    guidance_rescale: float = 0.0
    first_steps: int = 20
    first_solver: str = 'ddim'
    first_guidance: float = 7.5
    anchor_frame: int = 0
    decode_frames: int = 4

    def __post_init__(self):
        if self.profile not in PROFILES:
            raise ValueError(f'profile is one of {tuple(PROFILES)}, not {self.profile!r}')
        solver_named(self.solver, self.eta)
        solver_named(self.first_solver)
        if min(self.steps, self.first_steps, self.decode_frames) < 1:
            raise ValueError(
                f'steps and decode_frames are at least 1, not {self.steps}, {self.first_steps}, {self.decode_frames}'
            )

    def of_chunk(self, first: bool, anchored: bool) -> Sampling:
        """How the first chunk, or a later one, is sampled; anchored: whether the model has a long-term memory."""
        rescale = self.guidance_rescale
        if first:
            return Sampling(self.first_solver, self.first_steps, 0.0, text_guidance(self.first_guidance, rescale))
        if not anchored:
            guidance = text_guidance(self.guidance_text, rescale)
        elif self.profile == 'paper':
            guidance = text_and_anchor(self.guidance_text, self.guidance_anchor, rescale)
        else:
            guidance = text_with_anchor(self.guidance_text, rescale)
        return Sampling(self.solver, self.steps, self.eta, guidance)


def settings_for(config: ModelConfig, **overrides: Any) -> SampleSettings:
    """The settings that a model is sampled with: its profile's rules, its own guidance scales, then the overrides.

    An override of `steps` also sets `first_steps`, and one of `guidance_text` also sets `first_guidance`, because a
    first chunk has no other guidance. `profile='...'` overrides the one stored with the model.

    Raises ValueError for an unknown name or value, and if the process does not have that many steps.
    """
    known = {field.name for field in dataclasses.fields(SampleSettings)}
    if unknown := overrides.keys() - known:
        raise ValueError(f'unknown settings {sorted(unknown)}; there are {sorted(known)}')
    profile = overrides.get('profile', config.profile)
    if profile not in PROFILES:
        raise ValueError(f'profile is one of {tuple(PROFILES)}, not {profile!r}')
    own = {'guidance_text': config.guidance_text, 'guidance_anchor': config.guidance_anchor}
    if config.profile == 'paper':
        own['first_guidance'] = config.guidance_text
    for name, of_first in (('steps', 'first_steps'), ('guidance_text', 'first_guidance')):
        if name in overrides:
            own[of_first] = overrides[name]
    settings = SampleSettings(**{'profile': profile, **PROFILES[profile], **own, **overrides})
    if not 0 <= settings.anchor_frame < config.contract.first_frames:
        raise ValueError(
            f'anchor_frame={settings.anchor_frame} is not one of the {config.contract.first_frames} frames of a chunk'
        )
    for first in (True, False):
        chunk = settings.of_chunk(first, anchored=False)
        sampling_levels(config.contract.process, chunk.solver, chunk.steps)
    return settings
