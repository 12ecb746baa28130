"""How models are sampled by default, as docs/paper-and-release.md says."""

from st2v_jax.convert.recognise import RELEASED
from st2v_jax.open_model import open_model
from st2v_jax.streaming.settings import SampleSettings, settings_for


def test_the_shipped_model_is_sampled_by_the_paper():
    expected = SampleSettings(
        profile='paper',
        steps=20,
        solver='ddim',
        eta=0.0,
        guidance_text=3.0,
        guidance_anchor=1.5,
        first_steps=20,
        first_solver='ddim',
        first_guidance=3.0,
        anchor_frame=0,
    )
    assert settings_for(open_model().config) == expected


def test_converted_weights_are_sampled_as_released():
    expected = SampleSettings(
        profile='release',
        steps=20,
        solver='ddim',
        eta=1.0,
        guidance_text=7.5,
        guidance_anchor=7.5,
        first_steps=20,
        first_solver='dpmpp_2m',
        first_guidance=9.0,
        anchor_frame=0,
    )
    assert settings_for(RELEASED) == expected
