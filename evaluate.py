"""Measure a trained model on the small world: `python evaluate.py --help`."""

from st2v_jax.cli.evaluate import main

if __name__ == '__main__':
    raise SystemExit(main())
