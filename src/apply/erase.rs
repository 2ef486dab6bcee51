//! Erases volumes.

use std::cell::RefCell;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::context::Apply;
use super::outcome::{StepResult, failure};
use crate::error::chain;
use crate::job::{self, Answer, Host, Job, Overwritten, Target};
use crate::kms::KeyService;
use crate::plan::Erasure;
use crate::state::{Phase, State, VolumeEnd, VolumeRecord};

/// What became of a volume to erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erased {
    /// No key opens it any more.
    Done {
        /// What this run has overwritten; nothing if an earlier one has.
        overwritten: Vec<Overwritten>,
        /// When this run recorded that it begins.
        began: Timestamp,
        /// When everything was overwritten and read back.
        ended: Timestamp,
    },
    /// Nothing was overwritten.
    Untouched {
        /// Why.
        message: String,
    },
    /// It may be erased partly. The next run finishes it.
    Failed(StepResult),
}

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Erases volumes: records durably that it begins, has workers overwrite the headers, and records that the volumes are no more.
    pub async fn erase(&self, erasures: &[Erasure], state: State) -> Vec<Erased> {
        let began = Timestamp::now();
        let mut next = state.clone();
        for Erasure { record, key, is_known, .. } in erasures {
            if !is_known && next.key(key.id).is_none() {
                next.keys.push(key.clone());
            }
            match next.volumes.iter_mut().find(|volume| volume.luks_uuid == record.luks_uuid) {
                Some(known) => known.phase = Phase::Erasing,
                None => next.volumes.push(VolumeRecord { phase: Phase::Erasing, ..record.clone() }),
            }
        }
        if let Err(e) = if next == state { Ok(()) } else { self.save(&next) } {
            let message = format!("not erased: {}", chain(e));
            return erasures.iter().map(|_| Erased::Untouched { message: message.clone() }).collect();
        }
        let state = RefCell::new(next);
        join_all(erasures.iter().map(|erasure| self.erase_one(erasure, &state, began))).await
    }

    async fn erase_one(&self, erasure: &Erasure, state: &RefCell<State>, began: Timestamp) -> Erased {
        let Erasure { device, record, is_known, .. } = erasure;
        let luks_uuid = record.luks_uuid;
        let resumes = erasure.is_resumed();
        let job = Job::Erase(job::Erase { target: Target::from(device), luks_uuid, resumes });
        let (recorded, result) = match self.host.run(&device.name, job, &[]).await {
            Ok(Answer::Erased { overwritten }) => {
                let ended = Timestamp::now();
                let recorded = self.update(state, |s| s.part_with(luks_uuid, VolumeEnd::Erased, ended));
                (recorded, Erased::Done { overwritten, began, ended })
            }
            // an earlier run may have overwritten something
            Ok(Answer::Untouched { message }) if resumes => (Ok(()), Erased::Untouched { message }),
            Ok(Answer::Untouched { message }) => {
                let recorded = self.update(state, |s| match is_known {
                    true => {
                        s.volumes.iter_mut().filter(|v| v.luks_uuid == luks_uuid).for_each(|v| v.phase = record.phase)
                    }
                    false => {
                        s.part_with(luks_uuid, VolumeEnd::Forgotten, began);
                        s.former.pop();
                    }
                });
                (recorded, Erased::Untouched { message })
            }
            other => (Ok(()), Erased::Failed(failure(other))),
        };
        match recorded {
            Ok(()) => result,
            Err(e) => Erased::Failed(StepResult::Failed { message: format!("not recorded: {}", chain(e)) }),
        }
    }
}
