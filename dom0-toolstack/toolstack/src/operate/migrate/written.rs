//! What the source of a move, and a restarted dom0, write to the journal and find in it.

use super::Peers;
use super::journal::{GivenUp, Line};
use super::resolve::Claim;
use super::source::Leaving;
use crate::operate::{OperateError, Toolstack};
use crate::site::Site;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_migrate::handover::source::State;

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    fn line(&self) -> Option<Line> {
        let State::Committing(boot) = self.state else {
            return None;
        };
        Some(Line::GivenUp(GivenUp {
            attempt: self.attempt,
            boot,
            peer: self.peer.into(),
            name: self.entry.config.name.clone(),
        }))
    }

    /// Writes to disk that the domain is given up, before anybody hears of it. If that cannot be, it is
    /// not given up.
    pub(super) async fn write_given_up(&mut self) -> Result<(), OperateError> {
        let moves = &self.tools.moves;
        let line = self.line().expect("it is being given up");
        let Err(why) = moves.write(line).await else {
            return Ok(());
        };
        let State::Committing(boot) = self.state else {
            unreachable!("it is being given up");
        };
        // Nobody has heard of it. It may be on the disk: then a later boot asks, and is told.
        let _ = moves.write(Line::Settled(self.attempt)).await;
        self.state = State::Proving(boot);
        self.keep(false)?;
        Err(OperateError::Other(why))
    }

    /// The same by a dom0 that was restarted: the one before may not have come to it.
    pub(super) async fn write_again(&mut self) {
        if self.tools.moves.is_open(self.attempt) {
            return;
        }
        if let Some(line) = self.line()
            && let Err(why) = self.tools.moves.write(line).await
        {
            self.job.tell(why);
        }
    }

    /// Writes to disk that it is known whose the domain is. If that cannot be, a later boot asks again.
    pub(super) async fn write_settled(&mut self) {
        // What was claimed is open until the other host has heard of it.
        let claimed = matches!(self.state, State::Claimed(_));
        if !claimed
            && self.tools.moves.is_open(self.attempt)
            && let Err(why) = self.tools.moves.write(Line::Settled(self.attempt)).await
        {
            self.job.tell(why);
        }
    }
}

impl<S: Site> Toolstack<S> {
    /// After a start of dom0: opens the journal, and enters what the dom0 before may not have. Returns what
    /// there is to tell.
    pub(crate) async fn recover_moves(&self) -> Vec<String> {
        let mut told = Vec::new();
        let here = match self.boot() {
            Ok(here) => here,
            Err(error) => {
                told.push(format!("the journal of moves is not kept: {error}"));
                return told;
            }
        };
        told.extend(self.moves.open(&self.site, here).await);
        for attempt in self.attempts.running() {
            if !self.moves.has_committed(attempt)
                && let Err(why) = self.moves.write(Line::Committed(attempt, here)).await
            {
                told.push(why);
            }
        }
        let kept: Vec<u64> = crate::names::all(self.site.hypervisor())
            .unwrap_or_default()
            .iter()
            .flat_map(|info| {
                let domain = crate::names::id_of(info);
                let kept = self.move_of(domain).ok().flatten();
                let claim = self.claim_of(domain);
                let kept = kept.map(|kept| kept.attempt.0);
                kept.into_iter().chain(claim.map(|it| it.of.attempt.0))
            })
            .collect();
        for of in self.moves.cold_claims(|attempt| kept.contains(&attempt.0)) {
            self.jobs.press(Claim { of, domain: None });
        }
        self.moves.find_orphans(|attempt| kept.contains(&attempt.0));
        for orphan in self.moves.orphans() {
            let (name, peer): (String, String) = (orphan.name.to_string(), orphan.peer);
            told.push(format!(
                "domain '{name}' was given up to {peer} before this host was restarted: asking whose it is"
            ));
        }
        told
    }
}
