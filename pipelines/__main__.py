"""`python -m pipelines JOB` is `endcap JOB` of this very interpreter, whatever the PATH holds."""

from pipelines.cli import main

main()
