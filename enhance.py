"""A larger, sharper video from a video and its prompt: `python enhance.py --help`."""

from st2v_jax.cli.enhance import main

if __name__ == '__main__':
    raise SystemExit(main())
