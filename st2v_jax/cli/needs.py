"""`--plan`: a table of the time and memory that a video needs, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st2v_jax.cli.progress import warn

if TYPE_CHECKING:  # these import jax, for which --help does not wait
    from st2v_jax.refinement.enhancer import Enhancer
    from st2v_jax.refinement.sdedit import RefineSettings
    from st2v_jax.streaming.generate import Model
    from st2v_jax.streaming.settings import SampleSettings

GIB = 2**30


def show(
    model: Model, settings: SampleSettings, num_frames: int, videos: int = 1, enhancer: Enhancer | None = None
) -> None:
    """Prints what `st2v sample` needs for some videos; model and enhancer are those of `st2v_jax.planning.video`."""
    from st2v_jax.planning import video

    models = [model] if enhancer is None else [model, enhancer]
    over = _table(video.stages(model, settings, num_frames, enhancer), models, num_frames, videos)
    if enhancer is not None:
        _scratch(enhancer, enhancer.settings(variant=settings.profile), model.config.frame_size, num_frames)
    if over:
        _warn(video.remedies(model, settings, num_frames, over, enhancer))


def show_refinement(
    enhancer: Enhancer,
    settings: RefineSettings,
    size: tuple[int, int],
    num_frames: int,
    *,
    profile: str,
    decode_frames: int,
) -> None:
    """Prints what `st2v enhance` needs for num_frames of `size` (height, width)."""
    from st2v_jax.planning import programs, video

    stages = lambda decode_frames: video.counted(
        programs.refinement(enhancer, settings, size, num_frames, profile=profile, decode_frames=decode_frames)
    )
    over = _table(stages(decode_frames), [enhancer], num_frames)
    _scratch(enhancer, settings, size, num_frames)
    if over:
        _warn(['--decode-frames 1'] if video.peak(stages(1), enhancer) <= over else [])


def _table(found, models, num_frames, videos=1):
    """Prints parameters, stages, time and memory; returns the bytes of the device if they do not suffice, else None."""
    from st2v_jax import trees
    from st2v_jax.planning import device, video

    counts, resident = video.parameters(*models), video.resident(*models)
    listed = ', '.join(f'{name} {count / 1e6:,.0f} M' for name, count in counts.items())
    print(f'parameters: {listed}; {sum(counts.values()) / 1e6:,.0f} M in all, {resident / GIB:.2f} GiB')
    rates = device.measure(trees.computed_in(models[0].params))
    print(
        f'this device, measured now: matrix products {rates.flops["product"] / 1e12:.3g} TFLOP/s, convolutions '
        f'{rates.flops["convolution"] / 1e12:.3g} TFLOP/s, memory {rates.bandwidth / 1e9:.0f} GB/s, at least '
        f'{1e6 * rates.launch:.1f} us per kernel'
    )
    print(f'{"stage":<24} {"times":>6} {"TFLOP":>9} {"ms each":>10} {"seconds":>9} {"GiB":>7}')
    total = 0
    for stage in found:
        seconds = stage.seconds(rates)
        total += seconds * stage.repeats
        memory = (resident + stage.cost.temporary) / GIB
        print(
            f'{stage.name:<24} {stage.repeats:>6} {stage.cost.flops / 1e12:>9.4g} {1e3 * seconds:>10.4g} '
            f'{seconds * stage.repeats:>9.3g} {memory:>7.2f}'
        )
    peak, limit = video.peak(found, *models), device.device_memory()
    each = f', {videos} videos {_time(total * videos)}' if videos > 1 else ''
    print(
        f'{num_frames} frames: {_time(total)}{each}, plus compiling in the first run; memory at most '
        f'{peak / GIB:.2f} GiB' + ('' if limit is None else f' of {limit / GIB:.1f}'),
        flush=True,
    )
    return limit if limit is not None and peak > limit else None


def _scratch(enhancer, settings, size, num_frames):
    """Prints what the enhancement needs on the disk."""
    from st2v_jax.refinement import scratch

    needed, (folder, free) = enhancer.scratch_bytes(settings, size, num_frames), scratch.room()
    print(f'temporary files: {needed / 1e6:,.1f} MB in {folder} ($TMPDIR), where {free / 1e6:,.1f} MB are free')


def _warn(options):
    helps = f'it fits with {" and ".join(options)}' if options else 'use a smaller model or a larger device'
    warn(f'this needs more memory than the device has: {helps}')


def _time(seconds):
    for unit, name in ((3600, 'h'), (60, 'min')):
        if seconds >= 2 * unit:
            return f'{seconds / unit:.1f} {name}'
    return f'{seconds:.2g} s'
