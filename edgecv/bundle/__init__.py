"""The bundle: what an app developer gets, and can prove right on the device in a minute."""

from edgecv.bundle.sign import check_bundle
from edgecv.bundle.verify_bundle import problems
from edgecv.bundle.write import Options, remove_outdated, write_bundle

__all__ = ["Options", "check_bundle", "problems", "remove_outdated", "write_bundle"]
