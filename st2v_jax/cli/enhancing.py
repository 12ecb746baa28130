"""The refinement stage as commands run it: with a bar for the steps and one for what is written."""

import dataclasses
import warnings


def enhanced(enhancer, frames, prompt, progress, settings, **options):
    """Iterator over the enhanced frames of pieces [n,H,W,3].

    settings: a RefineSettings. options: more of `enhance`.
    """
    from st2v_jax.refinement.enhancer import enhance

    count = 0

    def read():
        nonlocal count
        for some in frames:
            yield some
            count += len(some)
        progress.stage('enhancing, compiling', settings.steps, 'steps')

    def on_step(step, steps):
        progress.to(step, f'enhancing step {step}/{steps}')
        if step == steps:
            progress.stage('writing', count)

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # a cut prompt has been reported in this program's own words
        pieces = enhance(enhancer, read(), prompt, on_step=on_step, **options, **dataclasses.asdict(settings))
    yield from pieces
