"""flyte: write tasks and apps; they run as the person who asked for them."""
