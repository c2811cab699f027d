"""``python -m phicrypt`` is the ``phicrypt`` program."""

from phicrypt.cli import main

main()
