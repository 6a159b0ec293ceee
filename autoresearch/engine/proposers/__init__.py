"""Who proposes edits: coding agents, a model API, search over constants, any command."""

from autoresearch.engine.proposers.base import (
    Proposal,
    ProposalRequest,
    Proposer,
    ProposerError,
    find_proposer,
)
from autoresearch.engine.proposers.digest import Digest

__all__ = ["Digest", "Proposal", "ProposalRequest", "Proposer", "ProposerError", "find_proposer"]
