"""What can go wrong for a user, by what they can do about it. Commands show each as one line (cli/run.py)."""


class BadInput(Exception):
    """The command cannot do what was asked; the message is the one line that the user sees."""


class InputError(OSError):
    """A file or folder that is not a video."""


class OutputError(OSError):
    """A path that no video can be written to."""


class WeightsError(ValueError):
    """A folder that is not a model, or whose weights do not fit its config."""


class Failed(Exception):
    """The command began and could not finish; the message is the one line that the user sees."""


class OutOfRange(Failed):
    """Numbers of a network that are not finite, mostly because the type that it computes in ends too early."""


class TrainingError(Failed):
    """Training cannot continue, as after a loss that is not finite."""


class SessionError(ValueError):
    """A folder that is not a session, or that holds something else than what is asked for."""
