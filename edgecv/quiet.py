"""Keep what native libraries print off the terminal, and in the log."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from edgecv.errors import MissingError
from edgecv.extras import install_command

__all__ = ["load_tensorflow", "quiet"]

log = logging.getLogger(__name__)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what is written to stdout and descriptor 2 to the log: to debug, or to error where an exception leaves."""
    sys.stderr.flush()
    printed = io.StringIO()
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        level = logging.DEBUG
        try:
            with contextlib.redirect_stdout(printed):
                yield
        except BaseException:
            level = logging.ERROR
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in (printed.getvalue() + caught.read().decode(errors="replace")).splitlines():
                log.log(level, "%s", line)


def load_tensorflow() -> None:
    """Import TensorFlow and the Keras that the networks are made of, without the lines they print. Takes seconds once.

    Raises:
        MissingError: they are not installed.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # makes tf.keras the same Keras, for the tools that use that name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet():
            import tensorflow
            import tf_keras  # noqa: F401
    except ImportError as error:
        raise MissingError(
            "training and exporting need TensorFlow",
            got=str(error),
            expected="the packages tensorflow and tf-keras",
            fix=install_command("train"),
        ) from error
    tensorflow.get_logger().setLevel("ERROR")
