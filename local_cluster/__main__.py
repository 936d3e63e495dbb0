"""`python -m local_cluster`."""

from services.importing import importing

with importing():
    from local_cluster.cli import main

main(prog_name="python -m local_cluster")
