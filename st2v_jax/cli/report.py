"""What commands say besides their progress: one line for a mistake, one for a warning."""

import sys


def warn(message):
    print(f'warning: {message}', file=sys.stderr, flush=True)


def fail(error, code, kind='error'):
    """Says what went wrong in one line: of a list of complaints the first and how many more there are."""
    first, *complaints = (line.strip() for line in str(error).splitlines())
    more = f' (and {len(complaints) - 1} more)' if len(complaints) > 1 else ''
    print(f'{kind}: {" ".join([first, *complaints[:1]])}{more}', file=sys.stderr, flush=True)
    return code


def warn_about_words(tokenizer, prompts):
    """Names the words that the model never saw and those that do not fit, prompt by prompt."""
    for prompt in dict.fromkeys(prompts):
        unknown, lost = tokenizer.unknown_words(prompt), tokenizer.lost(prompt)
        if unknown:
            known = 'sample.py --list-words shows what it knows'
            warn(f'this model never saw {", ".join(unknown)} and will ignore it; {known}')
        if lost:
            warn(f'the prompt is longer than 77 tokens and was cut; lost: "{lost}"')
