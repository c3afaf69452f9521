"""Kills, full disks and damaged files, tried on every verb that writes and on every reader; see docs/campaign.md."""
