"""Speed, memory and accuracy of edgecv itself, each a command that prints ratios. Never part of the tests."""
