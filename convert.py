"""Published checkpoints to folders of weights and back: `python convert.py --help`."""

from st2v_jax.cli.convert import main

if __name__ == '__main__':
    raise SystemExit(main())
