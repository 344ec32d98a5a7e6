"""The published release's files in, a model directory out: `convert.convert_release` and its command."""
