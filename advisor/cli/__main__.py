"""`python -m advisor.cli`: the command line without the installed script."""

from advisor.cli import main

main()
