//! A change of one partition as it is decided: the wanted lists of replicas, and what follows from them.

use serde::{Deserialize, Serialize};

use crate::{NO_LEADER, PartitionChange, PartitionImage};

/// Which leader to elect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Election {
    /// The first replica if it is in sync, even if the present leader could stay.
    Preferred,
    /// The present leader if it can stay, else any replica that holds every committed record.
    Clean,
    /// As `Clean`. If there is no such replica, any active one, and records may be lost.
    Unclean,
}

/// The wanted state of a partition.
#[derive(Debug)]
pub(crate) struct PartitionEdit<'a> {
    /// The present state.
    pub(crate) before: &'a PartitionImage,
    /// The wanted in-sync set.
    pub(crate) isr: Vec<i32>,
    /// The wanted replicas, the preferred leader first.
    pub(crate) replicas: Vec<i32>,
    /// The replicas that a reassignment adds.
    pub(crate) adding: Vec<i32>,
    /// The replicas that a reassignment removes.
    pub(crate) removing: Vec<i32>,
    /// Replicas that may have lost records, so that they are not eligible any more.
    pub(crate) lossy: Vec<i32>,
    /// Which leader to elect.
    pub(crate) election: Election,
    /// Whether the leader still recovers from an unclean election.
    pub(crate) recovering: bool,
    /// The eligible leader replicas. They follow from the rest.
    pub(crate) elr: Vec<i32>,
    /// The last leader of a partition without one. It follows from the rest.
    pub(crate) last_known_elr: Vec<i32>,
}

impl<'a> PartitionEdit<'a> {
    /// Begins with the present state.
    pub(crate) fn of(before: &'a PartitionImage) -> Self {
        Self {
            before,
            isr: before.isr.to_vec(),
            replicas: before.replicas.to_vec(),
            adding: before.adding.to_vec(),
            removing: before.removing.to_vec(),
            lossy: Vec::new(),
            election: Election::Clean,
            recovering: before.recovering,
            elr: before.elr.to_vec(),
            last_known_elr: before.last_known_elr.to_vec(),
        }
    }

    /// Returns the difference to the present state: what the wanted state asks for and what follows from it. `None` if
    /// nothing changes.
    ///
    /// `active` tells which brokers may lead. `min_isr` is the topic's `min.insync.replicas`; at most the number of
    /// replicas counts.
    pub(crate) fn finish(mut self, active: impl Fn(i32) -> bool, min_isr: usize) -> Option<PartitionChange> {
        self.complete_reassignment();
        self.update_eligible(min_isr.min(self.replicas.len()));
        let leader = self.elect(&active);
        let before = self.before;
        let mut change = PartitionChange::default();
        // A removed replica must not take part with the epoch of before.
        let removes = before.replicas.iter().any(|id| !self.replicas.contains(id));
        if leader != before.leader || removes {
            change.leader = Some(leader);
        }
        self.remember_last_leader(leader);
        let lists = [
            (&mut change.isr, self.isr, &before.isr),
            (&mut change.replicas, self.replicas, &before.replicas),
            (&mut change.adding, self.adding, &before.adding),
            (&mut change.removing, self.removing, &before.removing),
            (&mut change.elr, self.elr, &before.elr),
            (&mut change.last_known_elr, self.last_known_elr, &before.last_known_elr),
        ];
        for (changed, wanted, before) in lists {
            if wanted[..] != before[..] {
                *changed = Some(wanted);
            }
        }
        if self.recovering != before.recovering {
            change.recovering = Some(self.recovering);
        }
        (change != PartitionChange::default()).then_some(change)
    }

    /// Ends a reassignment as soon as all added replicas are in sync (KIP-455).
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let isr = without(&self.isr, &self.removing);
        let replicas = without(&self.replicas, &self.removing);
        if isr.is_empty() || replicas.is_empty() || !self.adding.iter().all(|id| isr.contains(id)) {
            return;
        }
        (self.isr, self.replicas) = (isr, replicas);
        self.elr.retain(|id| self.replicas.contains(id));
        self.adding.clear();
        self.removing.clear();
    }

    /// Keeps the replicas that leave a small in-sync set, since they hold every committed record: none is committed
    /// while the set is too small (KIP-966).
    fn update_eligible(&mut self, min_isr: usize) {
        if self.isr.len() >= min_isr {
            self.elr.clear();
            return;
        }
        for &id in &*self.before.isr {
            if !self.elr.contains(&id) {
                self.elr.push(id);
            }
        }
        self.elr.retain(|id| !self.isr.contains(id) && !self.lossy.contains(id) && self.replicas.contains(id));
        self.elr.sort_unstable();
    }

    /// Elects a leader. An election outside of the in-sync set makes the leader the only member of it.
    fn elect(&mut self, active: &impl Fn(i32) -> bool) -> i32 {
        let eligible = if self.isr.is_empty() { &self.elr } else { &self.isr };
        let valid = |id: i32| eligible.contains(&id) && active(id);
        let preferred = self.replicas.first().copied().filter(|_| self.election == Election::Preferred);
        let stays = Some(self.before.leader);
        let leader = preferred.into_iter().chain(stays).chain(self.replicas.iter().copied()).find(|&id| valid(id));
        if let Some(leader) = leader {
            if self.isr.is_empty() {
                self.isr = vec![leader];
                self.elr.retain(|&id| id != leader);
            }
            return leader;
        }
        match self.elect_unclean(active) {
            Some(leader) => {
                (self.isr, self.elr, self.recovering) = (vec![leader], Vec::new(), true);
                leader
            }
            None => NO_LEADER,
        }
    }

    /// Returns a leader that may lack records. It is the last leader if all others of the in-sync set have lost theirs,
    /// or with [`Election::Unclean`] any active replica.
    fn elect_unclean(&self, active: &impl Fn(i32) -> bool) -> Option<i32> {
        let last = match (&self.isr[..], &self.elr[..], &self.last_known_elr[..]) {
            ([], [], [last]) if self.replicas.contains(last) => Some(*last),
            _ => None,
        };
        let any = self.replicas.iter().copied().filter(|_| self.election == Election::Unclean);
        last.into_iter().chain(any).find(|&id| active(id))
    }

    /// Notes the last leader of a partition whose in-sync set is empty, and forgets it when there is a leader.
    fn remember_last_leader(&mut self, leader: i32) {
        if leader != NO_LEADER {
            self.last_known_elr.clear();
        } else if self.isr.is_empty() && self.before.leader != NO_LEADER {
            self.last_known_elr = vec![self.before.leader];
        }
    }
}

/// Returns a list without some members.
pub(crate) fn without(list: &[i32], gone: &[i32]) -> Vec<i32> {
    list.iter().copied().filter(|id| !gone.contains(id)).collect()
}
