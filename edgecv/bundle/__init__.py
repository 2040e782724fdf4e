"""The bundle: what an app developer gets, and can prove right on the device in a minute."""

from edgecv.bundle.verify_bundle import problems
from edgecv.bundle.write import write_bundle

__all__ = ["problems", "write_bundle"]
