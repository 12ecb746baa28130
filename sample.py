"""A long video from one prompt: `python sample.py --help`."""

from st2v_jax.cli.sample import main

if __name__ == '__main__':
    raise SystemExit(main())
