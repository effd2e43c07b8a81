//! Domains that an earlier boot of this host gave up: their memory here is gone, and the other host is
//! asked what became of them. Until it answers, nobody makes a domain of that name here.

use super::hello::Purpose;
use super::job::{Direction, Job, Stage};
use super::journal::{GivenUp, Line};
use super::source::hear_hello;
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, Peers, WORK_LIMIT_US};
use crate::operate::{OperateError, Toolstack};
use crate::site::Site;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_migrate::handover::source::{self, Input, State};
use godwit_migrate::handover::{MESSAGE_BYTES, Reply};
use godwit_migrate::stream::FrameKind;

/// The first pause between two questions, and the longest.
const PAUSE_US: u64 = 1_000_000;
const PAUSE_US_MAX: u64 = 15_000_000;

impl<S: Site> Toolstack<S> {
    /// Domains that an earlier boot of this host gave up and that nobody has answered for: to be settled,
    /// each by [`Toolstack::settle_orphan`].
    pub fn orphans(&self) -> Vec<GivenUp> {
        self.moves.orphans()
    }

    /// Why no domain of a name may be made now.
    pub(crate) fn orphan_in_the_way(&self, name: &str) -> Option<String> {
        let orphans = self.moves.orphans();
        let orphan = orphans.iter().find(|orphan| orphan.name == name)?;
        Some(format!(
            "a domain '{name}' was given up to {} before this host was restarted, and it is not known \
             whether it runs there: it is asked until it answers (xl migrate-status)",
            orphan.peer
        ))
    }

    /// Settles one of them. Returns what there is to tell.
    pub async fn settle_orphan<P: Peers>(&self, peers: &P, orphan: &GivenUp) -> String {
        let GivenUp { peer, name, .. } = orphan;
        let now_us = self.site.now_us();
        let job = self.jobs.begin(Direction::Out, name, peer, now_us);
        job.enter(Stage::HandOver);
        let mut state = State::Orphaned(orphan.boot);
        let mut pause_us = PAUSE_US;
        while !state.is_over() && self.is_orphan(orphan) {
            match self.ask_for_orphan(peers, orphan, state).await {
                Ok(next) => state = next,
                Err(error) => {
                    self.tell_orphan(&job, &error);
                    let until_us = self.site.now_us() + pause_us;
                    self.site.sleep_until(until_us).await;
                    pause_us = (pause_us * 2).min(PAUSE_US_MAX);
                }
            }
        }
        let told = match state {
            State::Moved => format!("it runs on {peer}"),
            State::Lost => format!("it ran on {peer} and was lost with it: not resumed"),
            State::Released => format!(
                "it never ran on {peer}; its memory was lost when this host was restarted (xl create)"
            ),
            State::Offered
            | State::Copying(_)
            | State::Proving(_)
            | State::Committing(_)
            | State::Orphaned(_)
            | State::Claimed(_)
            | State::ClaimedCold(_)
            | State::Disputed
            | State::Kept => "the operator has settled it".into(),
        };
        if state.is_over()
            && let Err(why) = self.moves.write(Line::Settled(orphan.attempt)).await
        {
            job.tell(why);
        }
        self.moves.forget_orphan(orphan.attempt);
        job.end(Ok(told.clone()));
        format!("domain '{name}': {told}")
    }

    fn is_orphan(&self, orphan: &GivenUp) -> bool {
        self.moves.orphans().contains(orphan)
    }

    fn tell_orphan(&self, job: &Job, error: &OperateError) {
        job.tell(format!("{error}; asking again"));
    }

    /// Asks once; of one that was claimed it tells.
    pub(super) async fn ask_for_orphan<P: Peers>(
        &self,
        peers: &P,
        orphan: &GivenUp,
        state: State,
    ) -> Result<State, OperateError> {
        let link = self.dialled(peers, &orphan.peer).await?;
        let mut talk = Talk::begin(&self.site, link, &orphan.peer).await?;
        let hello = self.hello(Purpose::Ask, false)?.encode();
        talk.say(FrameKind::HELLO, &[hello.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        hear_hello(&mut talk).await?;
        let (_, effects) = source::step(orphan.attempt, state, Input::AskAgain);
        let request = effects.send.expect("an orphan asks").encode();
        talk.say(FrameKind::REQUEST, &[&request], ANSWER_LIMIT_US)
            .await?;
        let frame = talk.hear(2 * WORK_LIMIT_US).await?;
        let reply = frame.body.get(..MESSAGE_BYTES).and_then(Reply::decode);
        let (FrameKind::REPLY | FrameKind::REFUSAL, Some(reply)) = (frame.kind, reply) else {
            let kind = frame.kind.to_string();
            return Err(talk.trouble(&format!("it answers with a {kind} frame")));
        };
        let (next, _) = source::step(orphan.attempt, state, Input::Reply(reply));
        let _ = talk.finish(FAREWELL_LIMIT_US).await;
        match next.is_over() {
            true => Ok(next),
            false => {
                let why: String = "it does not say whose the domain is".into();
                Err(OperateError::Other(format!("{}: {why}", orphan.peer)))
            }
        }
    }
}
