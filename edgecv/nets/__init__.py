"""The networks, as Keras functional models, and where their ImageNet weights come from."""

from edgecv.nets.build import build, names
from edgecv.nets.imagenet import input_scaling, load_imagenet
from edgecv.nets.profile import Profile, profile

__all__ = ["Profile", "build", "input_scaling", "load_imagenet", "names", "profile"]
