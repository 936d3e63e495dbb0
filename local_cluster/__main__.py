"""`python -m local_cluster`."""

from local_cluster.cli import main

main(prog_name="python -m local_cluster")
