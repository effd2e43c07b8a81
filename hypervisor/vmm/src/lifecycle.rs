//! The life of a domain: which state it is in, and what each event makes of it.
//!
//! ```text
//!              built                  guest shuts down
//!   Building ---------> Alive/running -----------------> Alive/stopped by the guest (shutdown, reboot, ...)
//!      |                    | crash                           |
//!      |                    +-----------> Alive/crashed       |        in each Alive state: pause +1, unpause -1
//!      |                    |                  |              |
//!      | destroy            | destroy          | destroy      | destroy
//!      +--------------------+---------+--------+--------------+
//!                                     v             (stopped, crashed or paused: reset, back to Building)
//!                                   Dying ---- no references left and resources released ----> Gone
//! ```
//!
//! Invariants, checked exhaustively by `tests/model`:
//! * A vCPU may run only if [`Life::may_run`]: alive, not stopped, pause count 0.
//! * Nothing leaves Dying but to Gone, and nothing leaves Gone. A dying or gone domain never runs.
//! * Gone is reached exactly when a dying domain has no reference (vCPU on a processor, hypercall at work on it, foreign mapping)
//!   and its resources are released. Until then its number and memory are not used again.
//! * Pauses balance: as many unpauses as pauses make it runnable again, through shutdown and crash too, and one more is refused.

/// How many pauses can be pending.
pub const PAUSES_MAX: u32 = 1 << 16;
/// How many references can be held.
pub const REFERENCES_MAX: u32 = 1 << 30;

/// Why a guest stopped itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShutdownReason {
    /// It powered itself off.
    PowerOff,
    /// It asked for a reset.
    Reboot,
    /// It is suspended, for saving or migration, and may be resumed.
    Suspend,
}

/// What an alive domain's guest is doing, pauses aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guest {
    /// Running, or able to.
    Running,
    /// It stopped itself; dom0 decides what comes next.
    ShutDown(ShutdownReason),
    /// It did what no guest may, or its vCPU cannot go on.
    Crashed,
}

/// Where a domain is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Being put together by dom0; never runs.
    Building,
    /// Complete.
    Alive(Guest),
    /// Being taken apart.
    Dying {
        /// Its memory, event ports and vCPUs have been given back.
        released: bool,
    },
    /// Nothing is left but the slot.
    Gone,
}

/// A domain's life: stage, pending pauses, references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    stage: Stage,
    pauses: u32,
    references: u32,
}

/// What can happen to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// dom0 has finished building it.
    Built,
    /// dom0, or the hypervisor for itself, stops its vCPUs; counted.
    Pause,
    /// Takes one pause back.
    Unpause,
    /// The guest stops itself.
    ShutDown(ShutdownReason),
    /// A suspended guest is to go on, after an attempt to migrate it that came to nothing.
    Resume,
    /// The guest cannot go on.
    Crash,
    /// dom0 puts it back to where it was built, with no pauses pending.
    Reset,
    /// dom0 gives it up.
    Destroy,
    /// The hypervisor has given its resources back.
    Released,
    /// Somebody starts to hold it: a vCPU enters a processor, a hypercall works on it, a page is mapped.
    Acquire,
    /// Somebody lets go.
    Drop,
}

/// Why an event was refused. The life is unchanged then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeError {
    /// It is being built: finish that first.
    StillBuilding,
    /// It was built before.
    AlreadyBuilt,
    /// It has shut down or crashed already.
    NotRunning,
    /// Only a suspended guest can be resumed.
    NotSuspended,
    /// It runs: pause it first.
    Running,
    /// It is dying or gone.
    Dying,
    /// It is alive: destroy it first.
    NotDying,
    /// Its resources were released before.
    AlreadyReleased,
    /// Unpaused more often than paused.
    NotPaused,
    /// [`PAUSES_MAX`] pauses are pending.
    TooManyPauses,
    /// [`REFERENCES_MAX`] references are held.
    TooManyReferences,
    /// Let go more often than held.
    NotReferenced,
}

impl Life {
    /// A domain just created.
    pub const fn new() -> Life {
        Life {
            stage: Stage::Building,
            pauses: 0,
            references: 0,
        }
    }

    /// Where it is.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Pauses pending.
    pub const fn pauses(&self) -> u32 {
        self.pauses
    }

    /// References held.
    pub const fn references(&self) -> u32 {
        self.references
    }

    /// Whether its vCPUs may enter guest mode.
    pub const fn may_run(&self) -> bool {
        matches!(self.stage, Stage::Alive(Guest::Running)) && self.pauses == 0
    }

    /// What an event makes of it: the one transition function.
    pub fn step(self, event: Event) -> Result<Life, LifeError> {
        let next = match event {
            Event::Built => match self.stage {
                Stage::Building => self.at(Stage::Alive(Guest::Running)),
                Stage::Alive(_) => return Err(LifeError::AlreadyBuilt),
                Stage::Dying { .. } | Stage::Gone => return Err(LifeError::Dying),
            },
            Event::Pause => self.pause()?,
            Event::Unpause => self.unpause()?,
            Event::ShutDown(reason) => self.stop(Guest::ShutDown(reason))?,
            Event::Crash => self.stop(Guest::Crashed)?,
            Event::Resume => match self.stage {
                Stage::Alive(Guest::ShutDown(ShutdownReason::Suspend)) => {
                    self.at(Stage::Alive(Guest::Running))
                }
                Stage::Building => return Err(LifeError::StillBuilding),
                Stage::Alive(_) => return Err(LifeError::NotSuspended),
                Stage::Dying { .. } | Stage::Gone => return Err(LifeError::Dying),
            },
            Event::Reset => match self.stage {
                Stage::Alive(_) if self.may_run() => return Err(LifeError::Running),
                Stage::Building | Stage::Alive(_) => Life {
                    pauses: 0,
                    ..self.at(Stage::Building)
                },
                Stage::Dying { .. } | Stage::Gone => return Err(LifeError::Dying),
            },
            Event::Destroy => match self.stage {
                Stage::Building | Stage::Alive(_) => self.at(Stage::Dying { released: false }),
                Stage::Dying { .. } | Stage::Gone => return Err(LifeError::Dying),
            },
            Event::Released => match self.stage {
                Stage::Dying { released: false } => self.at(Stage::Dying { released: true }),
                Stage::Dying { released: true } | Stage::Gone => {
                    return Err(LifeError::AlreadyReleased);
                }
                Stage::Building | Stage::Alive(_) => return Err(LifeError::NotDying),
            },
            Event::Acquire => self.acquire()?,
            Event::Drop => Life {
                references: self
                    .references
                    .checked_sub(1)
                    .ok_or(LifeError::NotReferenced)?,
                ..self
            },
        };
        Ok(next.gone_if_over())
    }

    fn at(self, stage: Stage) -> Life {
        Life { stage, ..self }
    }

    fn pause(self) -> Result<Life, LifeError> {
        match self.stage {
            Stage::Building | Stage::Alive(_) if self.pauses < PAUSES_MAX => Ok(Life {
                pauses: self.pauses + 1,
                ..self
            }),
            Stage::Building | Stage::Alive(_) => Err(LifeError::TooManyPauses),
            Stage::Dying { .. } | Stage::Gone => Err(LifeError::Dying),
        }
    }

    fn unpause(self) -> Result<Life, LifeError> {
        match self.stage {
            Stage::Building | Stage::Alive(_) => Ok(Life {
                pauses: self.pauses.checked_sub(1).ok_or(LifeError::NotPaused)?,
                ..self
            }),
            Stage::Dying { .. } | Stage::Gone => Err(LifeError::Dying),
        }
    }

    /// A vCPU that was on its way out when the domain was paused may still stop the guest, so pauses do not matter.
    fn stop(self, guest: Guest) -> Result<Life, LifeError> {
        match self.stage {
            Stage::Alive(Guest::Running) => Ok(self.at(Stage::Alive(guest))),
            Stage::Alive(Guest::ShutDown(_) | Guest::Crashed) => Err(LifeError::NotRunning),
            Stage::Building => Err(LifeError::StillBuilding),
            Stage::Dying { .. } | Stage::Gone => Err(LifeError::Dying),
        }
    }

    fn acquire(self) -> Result<Life, LifeError> {
        match self.stage {
            Stage::Building | Stage::Alive(_) if self.references < REFERENCES_MAX => Ok(Life {
                references: self.references + 1,
                ..self
            }),
            Stage::Building | Stage::Alive(_) => Err(LifeError::TooManyReferences),
            Stage::Dying { .. } | Stage::Gone => Err(LifeError::Dying),
        }
    }

    fn gone_if_over(self) -> Life {
        match self.stage {
            Stage::Dying { released: true } if self.references == 0 => self.at(Stage::Gone),
            Stage::Dying { .. } | Stage::Building | Stage::Alive(_) | Stage::Gone => self,
        }
    }
}

impl Default for Life {
    fn default() -> Self {
        Life::new()
    }
}
