"""Playbook actions performed: pages leave, notices are prepared, approved campaigns start. The hub's second half.

The planner returns data; here it becomes rows. Each action is one transaction with its audit entries, and the step row
written in it makes a second performance impossible.
"""

from __future__ import annotations

ENQUEUE_BATCH = 2_000
"""People put into the vault and the outbox at a time."""
