"""`python -m tower.agent`: what `tower agent` runs, without loading the rest of the command line."""

from __future__ import annotations

import sys

from tower.agent.process import main

sys.exit(main())
