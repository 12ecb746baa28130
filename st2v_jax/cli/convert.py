"""`st2v convert --from <published files> --to <folder>`: published weights become a folder of ours.

`--check <published files>` reports on them instead, see cli/check.py. Code in a file is never run: a file that is cut
short, altered, or holds anything but tensors is bad input.
"""

from pathlib import Path

from st2v_jax.cli import options
from st2v_jax.cli.progress import Progress, warn
from st2v_jax.errors import BadInput
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_folder

DESCRIPTION = """\
Converts published checkpoints into a folder that sample and enhance read as --weights, or such a folder back into the
published formats. Files are recognised by their tensors, not by their names. Memory stays little above the size of the
largest tensor. A conversion that was stopped continues when the command is given again: complete networks are not
written twice.

With --check nothing is converted. A report says whether the files hold what a streaming model needs.
"""
EXAMPLES = """\
examples:
  {run} --from streaming_t2v.ckpt --to weights/st2v
  {run} --from text-to-video-ms-1.7b/ streaming_t2v.ckpt Video-to-Video/ --to weights/st2v   # all three stages
  {run} --from damo-vilab/text-to-video-ms-1.7b --to weights/st2v   # downloads the files and adds them to the folder
  {run} --from weights/st2v --to-diffusers exported/
  {run} --check streaming_t2v.ckpt text-to-video-ms-1.7b/ --report report.md   # do the files fit together?

A source is a file (.ckpt, .pth, .bin, .safetensors, .index.json), a folder of such files, or a repository of the
Hugging Face hub. If two sources have the same network, the later one is used.
docs/weights.md lists the published files.
"""


def work(arguments, run):
    """Checks, converts, reports."""
    if arguments.check:
        return _check(arguments, run)
    if not (arguments.to or arguments.to_diffusers):
        raise BadInput('--from needs a folder to write: --to or --to-diffusers (see --help)')
    for name in ('report', 'no_run'):
        if getattr(arguments, name):
            raise BadInput(f'--{name.replace("_", "-")} belongs to --check (see --help)')
    run.target, run.written = arguments.to or arguments.to_diffusers, 'networks that are complete stay'
    for source in arguments.source:
        if Path(source).exists() and Path(run.target).exists() and Path(source).samefile(run.target):
            raise BadInput(f'{run.target} is a source: write to another folder')
    with locked(run.target):
        check_folder(run.target)
        (_import if arguments.to else _export)(arguments)


def _check(arguments, run):
    from st2v_jax.cli.check import work

    if arguments.to or arguments.to_diffusers:
        raise BadInput('--check writes no weights: leave out --to and --to-diffusers')
    work(arguments, run)


def _import(arguments):
    import jax.numpy as jnp  # here, as below: what is loaded now need not be waited for by --help

    from st2v_jax.convert.to_folder import carry_out, plan

    say = (lambda text: None) if arguments.quiet else (lambda text: print(text, flush=True))
    planned = plan(arguments.source, arguments.to, jnp.dtype(arguments.dtype))
    for file in planned.left_out:
        warn(f'{file} holds nothing that we know, and is left out')
    for name in planned.done:
        say(f'{name}: is there already')
    sizes = planned.sizes()
    for name, size in sizes.items():
        file, checkpoint = planned.assembly.files[name]
        say(f'{name}: {size / 1e6:,.1f} M parameters of {file} ({checkpoint.kind})')
    total, written = sum(sizes.values()) / 1e6, 0
    with Progress(Path(arguments.to).name, quiet=arguments.quiet or not sizes) as progress:
        progress.stage('', total, 'M parameters')

        def on_array(name, size):
            nonlocal written
            written += size
            progress.to(written / 1e6, name)

        carry_out(planned, on_array)
    say(f'saved {arguments.to}')


def _export(arguments):
    from st2v_jax.convert.to_diffusers import export

    if len(arguments.source) != 1:
        raise BadInput(f'one folder of weights is exported at a time, not {len(arguments.source)}')
    say = (lambda name: None) if arguments.quiet else (lambda name: print(name, flush=True))
    export(arguments.source[0], arguments.to_diffusers, say)
    if not arguments.quiet:
        print(f'saved {arguments.to_diffusers}')


def parser(prog):
    usage = f'{prog} --from SOURCE ... --to FOLDER [options]'
    parser = options.Parser(prog, DESCRIPTION, epilog=EXAMPLES.format(run=prog), usage=usage)
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        '--from',
        dest='source',
        nargs='+',
        action='extend',
        metavar='SOURCE',
        help='files, folders or repositories to convert',
    )
    what.add_argument(
        '--check',
        nargs='+',
        action='extend',
        metavar='SOURCE',
        help='only read and report: what the files hold, what is missing or does not fit, numbers that are not finite, '
        'and one denoising step in float32 and in bfloat16',
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--to', metavar='FOLDER', help='folder to write the weights to; networks in it stay')
    where.add_argument('--to-diffusers', metavar='FOLDER', help='write the weights under the published names')
    add(
        '--dtype',
        choices=('float16', 'bfloat16', 'float32'),
        default='float16',
        help='number format of the weights (default: float16)',
    )
    add('--report', metavar='FILE', help='with --check: also write the report, as .md or .json')
    add('--no-run', action='store_true', help='with --check: skip the denoising step, which takes time and memory')
    add('--quiet', action='store_true', help='print warnings and errors only')
    return parser
