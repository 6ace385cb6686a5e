"""Where saved members name their estimators, from when these lay here: members that were written then can still be read."""

from bayesens.members.estimators import EarlyStoppedXGB, RowCap

__all__ = ["EarlyStoppedXGB", "RowCap"]
