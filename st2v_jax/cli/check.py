"""`st2v convert --check`: what published files hold and what of it does not fit, on the screen and as a file."""

import dataclasses
import json
import os
import textwrap
from pathlib import Path

from st2v_jax.cli.needs import GIB
from st2v_jax.cli.progress import Progress
from st2v_jax.errors import BadInput, WeightsError
from st2v_jax.storage.places import check_file

ENDINGS = ('.md', '.json')
WIDTH = 80
SHOWN = 8  # lines of a list on the screen; the report file has all of them
SHORT = {'float64': 'F64', 'float32': 'F32', 'float16': 'F16', 'bfloat16': 'BF16'}  # as safetensors files have it


def work(arguments, run):
    """Reads, prints, tries a step, and ends with an error that counts what is wrong."""
    from st2v_jax.convert.check import check

    file = None if arguments.report is None else _checked(Path(arguments.report))
    with Progress('files', quiet=arguments.quiet) as progress:

        def on_read(done, total):
            if progress.total is None:
                progress.stage('reading', total / 1e6, 'MB')
            progress.to(done / 1e6)

        report = check(arguments.check, on_read)
        if progress.total is not None:
            progress.to(progress.total)
    say = (lambda text: None) if arguments.quiet else (lambda text: print(text, flush=True))
    say(on_screen(_files(report) + _networks(report) + _misfits(report)))
    if file is not None:  # now: a step that takes too much memory may be the end of this process
        _write(file, report, {'skipped': 'the program ended before it was done'})
        run.target, run.written = str(file), f'{file} has the report without the step'
    step = _try_a_step(arguments, report, say)
    say(on_screen(_step(step) + _versions(report)))
    if file is not None:
        _write(file, report, step)
        say(f'saved {file}')
    counts = _problems(report, step)
    if counts:
        total = sum(counts.values())
        listed = ', '.join(f'{count} {what}' for what, count in counts.items())
        raise WeightsError(f'{total} problem{"s" * (total != 1)}: {listed}')
    say('everything that a streaming model needs is there, fits and is finite')


def _checked(file):
    """The file that the report is written to; raises BadInput or OutputError if it cannot be."""
    if file.suffix not in ENDINGS:
        raise BadInput(f'a report is a file {" or ".join(ENDINGS)}, not {file}')
    return check_file(file)


def _problems(report, step):
    """{'tensors missing': 2, ...}"""
    chunks = step.get('chunks', {}).values()
    wrong = sum(not finite for chunk in chunks for finite in chunk['finite'].values())
    counts = report.problems() | ({('step', 'not finite'): wrong} if wrong else {})
    return {f'{what}{"s" * (count != 1)} {state}': count for (what, state), count in counts.items()}


def _write(file, report, step):
    """The report file, whole or not at all."""
    from st2v_jax.storage.atomic import write_bytes

    problems = _problems(report, step)
    if file.suffix == '.json':
        values = dataclasses.asdict(report) | {'step': step, 'problems': problems}
        text = json.dumps(values, indent=1, allow_nan=False) + '\n'
    else:
        listed = ', '.join(f'{count} {what}' for what, count in problems.items()) or 'none'
        about = f'{", ".join(report.sources)}, read on {report.date} by `st2v convert --check`. Problems: {listed}.'
        planned = _planned(step) if 'needs' in step else []
        blocks = _files(report) + _networks(report) + _misfits(report) + planned + _step(step) + _versions(report)
        text = markdown([Text(about), *blocks])
    write_bytes(file, text.encode())


def _try_a_step(arguments, report, say):
    """One step in each precision that fits the device, or why there is none; JSON values."""
    if arguments.no_run:
        return {'skipped': '--no-run'}
    if not report.makes_a_model():
        return {'skipped': 'it takes all networks of the streaming stage, and files without misfits'}
    import jax

    from st2v_jax.evaluation import first_contact
    from st2v_jax.planning.device import device_memory

    opened, device = first_contact.open_all(arguments.check), jax.local_devices()[0]
    name = f'CPU with {os.cpu_count()} cores' if device.platform == 'cpu' else device.device_kind
    needs, limit = first_contact.needs(opened), device_memory()
    fitting = [dtype for dtype, need in needs.items() if limit is None or need.total <= limit]
    taken = {dtype: dataclasses.asdict(need) for dtype, need in needs.items()}
    step = {'device': name, 'device_memory': limit, 'needs': taken}
    say(on_screen(_planned(step)))
    if not fitting:
        return step | {'skipped': 'the device has too little memory'}
    try:
        tell = lambda dtype: say(f'computing in {dtype}; compiling takes a while the first time')
        return step | {'chunks': first_contact.compare(opened, fitting, tell)}
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
            return step | {'skipped': 'the device ran out of memory'}
        raise


@dataclasses.dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """Lines under a title: as many as the screen takes, all of them in a file."""

    title: str
    lines: list[str]
    whole: bool = False  # on the screen too


@dataclasses.dataclass(frozen=True)
class Table:
    """The first column is text, the others are numbers."""

    header: list[str]
    rows: list[list[str]]


def _files(report):
    blocks = [Heading('Files')]
    for file in report.files:
        lines = []
        if file.tensors:
            types = ', '.join(f'{count:,} {dtype}' for dtype, count in file.dtypes.items())
            lines.append(f'{", ".join(file.kinds) or "nothing known"}; tensors: {types}')
        for part in file.parts:
            beside = f'{part.name}, ' if len(file.parts) > 1 else ''
            lines += [f'{beside}{part.bytes:,} bytes; SHA-256 of the first MiB:', part.sha256]
        lines += file.troubles
        lines += [f'{name} is damaged: it does not have its checksum' for name in file.damaged]
        if file.examples:
            lines.append(f'its tensors: {", ".join(file.examples)}{", ..." * (file.tensors > len(file.examples))}')
        blocks.append(Listing(f'{file.number}. {file.name}', lines, whole=True))
    for title, names in (('settings read from', report.settings), ('copies that are not read', report.not_read)):
        if names:
            blocks.append(Listing(title, [', '.join(names)], whole=True))
    for title, lines in (('sources', report.troubles), ('files together', report.disagreements)):
        if lines:
            blocks.append(Listing(f'what is wrong with {title}', lines))
    return blocks


def _named(network):
    return network.name if network.used in (True, None) else f'{network.name}, unused'


def _networks(report):
    blocks = [Heading('Networks')]
    if report.absent:
        blocks.append(Text(f'In none of the files, and needed by a streaming model: {", ".join(report.absent)}.'))
    if not report.networks:
        return blocks
    header = ['network', 'file', 'parameters', 'types', 'missing', 'unknown', 'misshapen', 'not finite']
    rows = [
        [
            _named(network),
            f'{network.file}',
            f'{network.parameters / 1e6:,.2f} M',
            ' '.join(SHORT.get(dtype, dtype) for dtype in network.dtypes),
            f'{len(network.missing)}',
            f'{len(network.unknown)}',
            f'{len(network.shapes)}',
            f'{len(network.not_finite)}',
        ]
        for network in report.networks
    ]
    number = lambda value: '-' if value is None else f'{value:.3g}'
    statistics = [
        [
            _named(network),
            f'{network.file}',
            *(number(network.statistics[name]) for name in ('mean', 'std', 'min', 'max')),
            f'{100 * network.statistics["zeros"]:.2f} %',
            *(f'{network.statistics[name]}' for name in ('nan', 'infinite', 'beyond_float16')),
        ]
        for network in report.networks
    ]
    notes = []
    if any(network.used is False for network in report.networks):
        notes = [Text('Unused: st2v convert takes the network from another file, which has it too.')]
    header_of_numbers = ['numbers', 'file', 'mean', 'std', 'min', 'max', 'zeros', 'NaN', 'inf', '> float16']
    return [*blocks, Table(header, rows), *notes, Table(header_of_numbers, statistics)]


def _misfits(report):
    blocks = []
    for network in report.networks:
        where = f'{network.name} of file {network.file}'
        finite = {
            tensor: ', '.join(
                f'{count:,} {what}'
                for what, counts in (('NaN', network.nan), ('infinite', network.infinite))
                if (count := counts.get(tensor))
            )
            for tensor in sorted(network.not_finite)
        }
        large = {tensor: f'{count:,} numbers' for tensor, count in network.beyond_float16.items()}
        lists = {
            'missing': network.missing,
            'unknown': network.unknown,
            'of a wrong shape': network.shapes,
            'not finite': finite,
            'too large for float16 (convert with --dtype bfloat16 or float32)': large,
        }
        for title, found in lists.items():
            lines = [f'{tensor}: {what}' for tensor, what in found.items()] if isinstance(found, dict) else found
            if lines:
                blocks.append(Listing(f'{where}: {len(lines)} tensor{"s" * (len(lines) != 1)} {title}', lines))
    return [Heading('Misfits'), *blocks] if blocks else []


STEP = Heading('One step in two precisions')


def _planned(step):
    """What it takes, said before it is taken."""
    needs = [
        f'{(need["resident"] + need["temporary"]) / GIB:.2f} GiB in {dtype} (parameters {need["resident"] / GIB:.2f}, '
        f'step {need["temporary"] / GIB:.2f})'
        for dtype, need in step['needs'].items()
    ]
    limit = '' if step['device_memory'] is None else f' and {step["device_memory"] / GIB:.1f} GiB'
    return [STEP, Text(f'One guided step takes {" and then ".join(needs)}. The device: {step["device"]}{limit}.')]


def _step(step):
    """What came of it, below `_planned`."""
    blocks = [] if 'needs' in step else [STEP]
    if 'skipped' in step:
        blocks.append(Text(f'It was not computed: {step["skipped"]}.'))
    if 'chunks' not in step:
        return blocks
    dtypes = list(step['needs'])
    said = lambda finite: {True: 'finite', False: 'NOT FINITE', None: 'too large'}[finite]
    number = lambda value: '-' if value is None else f'{value:.2g}'
    rows = [
        [name, *(said(chunk['finite'].get(dtype)) for dtype in dtypes), *map(number, chunk['apart'].values())]
        for name, chunk in step['chunks'].items()
    ]
    note = (
        'Prediction and latents: how far bfloat16 is from float32, the norm of the difference over the norm. The '
        'prediction is that of the clean latents, the latents are what the step makes of the noise.'
    )
    return [
        *blocks,
        Table(['one guided step', *dtypes, *next(iter(step['chunks'].values()))['apart']], rows),
        Text(note),
    ]


def _versions(report):
    return [
        Heading('Versions'),
        Text(', '.join(f'{name} {version}' for name, version in report.versions.items()) + '.'),
    ]


def on_screen(blocks) -> str:
    """The blocks as text of `WIDTH` columns, but for names that are longer."""
    options = dict(width=WIDTH, break_long_words=False, break_on_hyphens=False)
    fill = lambda text, indent='': textwrap.fill(
        _printable(text), initial_indent=indent, subsequent_indent=indent, **options
    )
    lines, before = [], None
    for block in blocks:
        if isinstance(block, Heading | Table) and before is not None and not isinstance(before, Heading):
            lines.append('')
        match block:
            case Heading(text):
                lines += [text, '-' * len(text)]
            case Text(text):
                lines.append(fill(text))
            case Listing(title, items, whole):
                shown = items if whole else items[:SHOWN]
                more = [f'... and {len(items) - len(shown)} more: --report has all'] if len(shown) < len(items) else []
                lines += [fill(title), *(fill(line, '   ') for line in [*shown, *more])]
            case Table(header, rows):
                widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
                for row in [header, *rows]:
                    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
                    lines.append(' '.join(cells).rstrip())
        before = block
    return '\n'.join(lines) + '\n' * bool(lines)


def markdown(blocks) -> str:
    """The blocks as a page."""
    parts = ['# Check of published weights']
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f'## {text}')
            case Text(text):
                parts.append(_printable(text))
            case Listing(title, items):
                parts.append('\n'.join([f'{_printable(title)}:', '', *(f'- {_printable(line)}' for line in items)]))
            case Table(header, rows):
                cells = lambda row: '| ' + ' | '.join(row) + ' |'
                rule = cells(['---', *['---:'] * (len(header) - 1)])
                parts.append('\n'.join([cells(header), rule, *map(cells, rows)]))
    return '\n\n'.join(parts) + '\n'


def _printable(text):
    """What is in a file is not to be trusted: a name of a tensor may hold what a terminal takes for a command."""
    return ''.join(letter if letter.isprintable() else '?' for letter in text)
