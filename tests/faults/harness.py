"""The whole system where faults are made: started for it, kept busy, and looked at afterwards."""

from typing import Final

OUTAGE_VARIABLE: Final = "FAULTS_OUTAGE_S"
SHORT_OUTAGE_S: Final = 20.0
