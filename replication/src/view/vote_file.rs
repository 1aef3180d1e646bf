//! A node's vote on disk: what it promised and accepted, and the incarnation it may not repeat.
//!
//! ```text
//!  vote        the file: identity, incarnation, kept, promised, accepted view, checksum (174 B)
//!  vote.new    the next content on its way: written, synced, renamed over the file
//!  vote.boot   from an operator: this node never ran; used up by the first start
//!  vote.replace  seconds since 1970, from an operator: the vote is lost, read it back
//!  vote.lock   held by the process that votes
//! ```
//!
//! A save writes a whole new file and renames it, so a power loss leaves the former content or
//! the new one, and any other damage is told from both by the checksum: a voter must never fall
//! back to an older vote (V10). A file that is missing is therefore a *lost* vote, unless an
//! operator has said by [`VoteFile::permit_first_boot`], or `touch vote.boot`, that this node never
//! ran: a configuration value could not say it, for it would still say so after the disk was
//! replaced. Should it have run after all, it does no harm that can be prevented: its incarnation is
//! the time, so that nothing is sealed twice under one; it is not believed to have kept anything; and
//! its vote is read back like a lost one as soon as a view shows that it is known.
//!
//! # A lost vote
//!
//! An operator who has made sure that no other process runs as this node writes the time into
//! `vote.replace` (`date +%s > vote.replace`, or [`VoteFile::permit_replacement`]). The next start
//! begins with that number as incarnation, which is above all former ones, joins, and is filled;
//! it votes and acts only after so many other voters have told it their votes that nothing it
//! ever promised is missed: both others of three, three of four. Until then a majority must be
//! had without it, as while it was away.
//!
//! # One incarnation for all
//!
//! ```text
//!  open VoteFile ── incarnation raised on disk ──▶ RingConfig::incarnation   (each shard)
//!        │                                         Courier, ReplicatorConfig (each shard)
//!        └─ durable ──▶ Views::start ── the same incarnation ──▲
//! ```
//!
//! 1. `let mut vote = VoteFile::open(path, identity, now_s)?`: the raised incarnation is on disk now, so
//!    a crash from here on repeats none, whatever was sealed under it.
//! 2. Open the rings with `incarnation: vote.incarnation()`. `kept` is true if every shard's
//!    [`Recovery::kept`](crate::Recovery::kept) is.
//! 3. `Views::start(config, vote.durable(), kept, now, &mut vote)`, and `set_first_boot` if
//!    `vote.boot() == Boot::First`.
//! 4. Make `Replicator` and `Courier` with `views.incarnation()`. It is `vote.incarnation()` at
//!    first and rises while the node runs, when the node reads that it was declared dead: make
//!    both anew whenever it differs from theirs. The ring keeps its own, for ids of calls stay
//!    unique by their counter.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::wire::{self, Writer};
use super::{Durable, SaveFault, VOTERS_MAX, VoteStore};
use crate::frame::{Bytes, COUNT_MAX};
use crate::register::{Ballot, Vote};

/// The vote of one node in one file, locked as long as this lives.
#[derive(Debug)]
pub struct VoteFile {
    path: PathBuf,
    identity: VoteIdentity,
    boot: Boot,
    /// As it was before this start.
    before: Durable,
    /// What is on disk.
    saved: Durable,
    saves_failed: u64,
    _lock: File,
}

/// Whose vote it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteIdentity {
    /// The cluster.
    pub cluster: u32,
    /// The node.
    pub node: u16,
}

/// What an open vote says about the node's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// The node never ran before, says its operator.
    First,
    /// It did.
    Again,
    /// It did, and its vote is lost.
    Replaced,
}

/// Why a vote cannot be used. The node must not vote; file and permission are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteFault {
    /// There is no file, and nobody said that this is the first boot: the vote is lost.
    Lost,
    /// The checksum does not match, or the content makes no sense.
    Damaged,
    /// Written in a format this version does not read.
    Format(u32),
    /// Another node's.
    Identity(VoteIdentity),
    /// `vote.replace` does not hold seconds since 1970.
    Replacement,
    /// The time is one of before 2001, and a first boot needs it.
    Clock,
    /// Another process holds it.
    Locked,
    /// The incarnation cannot be raised any more.
    IncarnationsExhausted,
    /// The operating system said no.
    Io(io::ErrorKind),
}

impl VoteFile {
    /// Says that the node whose vote belongs at `path` never ran: the next `open` may begin
    /// without a file. Changes nothing if there is one.
    ///
    /// # Errors
    /// `Io`.
    pub fn permit_first_boot(path: &Path) -> Result<(), VoteFault> {
        if path.try_exists()? {
            return Ok(());
        }
        let folder = folder(path);
        fs::create_dir_all(folder)?;
        File::create(path.with_extension("boot"))?.sync_all()?;
        sync_folder(folder)
    }

    /// Says that the vote of this node is lost and may be read back from the others. `now_s` is
    /// the time in seconds since 1970. Changes nothing if there is a vote.
    ///
    /// # Errors
    /// `Io`.
    pub fn permit_replacement(path: &Path, now_s: u32) -> Result<(), VoteFault> {
        if path.try_exists()? {
            return Ok(());
        }
        let folder = folder(path);
        fs::create_dir_all(folder)?;
        let mut file = File::create(path.with_extension("replace"))?;
        file.write_all(now_s.to_string().as_bytes())?;
        file.sync_all()?;
        sync_folder(folder)
    }

    /// Opens the vote of a node and raises its incarnation, on disk before this returns. `now_s` is
    /// the time in seconds since 1970.
    ///
    /// # Errors
    /// See [`VoteFault`].
    pub fn open(path: &Path, identity: VoteIdentity, now_s: u32) -> Result<Self, VoteFault> {
        // Without its folder there is no file either.
        let lock = lock(path).map_err(|fault| match fault {
            VoteFault::Io(io::ErrorKind::NotFound) => VoteFault::Lost,
            other => other,
        })?;
        let permit = path.with_extension("boot");
        let replace = path.with_extension("replace");
        let (before, boot) = match fs::read(path) {
            Ok(bytes) => (decode(&bytes, identity)?, Boot::Again),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(incarnation) = replacement(&replace)? {
                    (Durable::replacement(incarnation), Boot::Replaced)
                } else if permit.try_exists()? {
                    let now_s = incarnation_of(now_s).ok_or(VoteFault::Clock)?;
                    (Durable::first_boot(now_s), Boot::First)
                } else {
                    return Err(VoteFault::Lost);
                }
            }
            Err(error) => return Err(error.into()),
        };
        let incarnation = before.incarnation.checked_add(1);
        let incarnation = incarnation.ok_or(VoteFault::IncarnationsExhausted)?;
        let saved = Durable {
            incarnation,
            ..before
        };
        let file = Self {
            path: path.to_owned(),
            identity,
            boot,
            before,
            saved,
            saves_failed: 0,
            _lock: lock,
        };
        file.write(&saved)?;
        for used in [permit, replace] {
            if used.try_exists()? {
                fs::remove_file(&used)?;
                sync_folder(folder(path))?;
            }
        }
        Ok(file)
    }

    /// What to start [`Views`](super::Views) from, which raises the incarnation to `incarnation`.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.before
    }

    /// The incarnation of this start.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.before.incarnation + 1
    }

    /// Whether the node ran before.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Steps not taken because the disk did not take the vote.
    #[must_use]
    pub fn saves_failed(&self) -> u64 {
        self.saves_failed
    }

    fn write(&self, durable: &Durable) -> Result<(), VoteFault> {
        let bytes = encode(durable, self.identity);
        let next = self.path.with_extension("new");
        let mut file = File::create(&next)?;
        file.write_all(&bytes)?;
        // The bytes first, then the name: never a name with other bytes behind it.
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        sync_folder(folder(&self.path))
    }
}

impl VoteStore for VoteFile {
    fn save(&mut self, durable: &Durable) -> Result<(), SaveFault> {
        if *durable == self.saved {
            return Ok(());
        }
        self.write(durable).map_err(|_| {
            self.saves_failed += 1;
            SaveFault
        })?;
        self.saved = *durable;
        Ok(())
    }
}

// The number an operator gave, if one did.
fn replacement(path: &Path) -> Result<Option<u32>, VoteFault> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let seconds = text.trim().parse().ok();
    let seconds = seconds.and_then(incarnation_of);
    seconds.map(Some).ok_or(VoteFault::Replacement)
}

// An incarnation must leave room for those of later starts (and for the clocks of 2038).
fn incarnation_of(seconds: u32) -> Option<u32> {
    (SECONDS_MIN..COUNT_MAX)
        .contains(&seconds)
        .then_some(seconds)
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new("."))
}

fn sync_folder(folder: &Path) -> Result<(), VoteFault> {
    Ok(File::open(folder)?.sync_all()?)
}

fn lock(path: &Path) -> Result<File, VoteFault> {
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).write(true);
    let file = options.open(path.with_extension("lock"))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => VoteFault::Locked,
        TryLockError::Error(error) => error.into(),
    })?;
    Ok(file)
}

fn encode(durable: &Durable, identity: VoteIdentity) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    let (content, checksum) = bytes.split_at_mut(CONTENT_BYTES);
    let mut writer = Writer::new(content);
    let (promised, accepted) = (durable.vote.promised, durable.vote.accepted.0);
    let written = (|| {
        writer.put(&MAGIC)?;
        writer.put(&FORMAT.to_le_bytes())?;
        writer.put(&identity.cluster.to_le_bytes())?;
        writer.put(&identity.node.to_le_bytes())?;
        writer.put(&durable.incarnation.to_le_bytes())?;
        writer.put(&[u8::from(durable.kept)])?;
        writer.put(&promised.as_u64().to_le_bytes())?;
        writer.put(&accepted.as_u64().to_le_bytes())?;
        writer.view(&durable.vote.accepted.1)
    })();
    written.expect("CONTENT_BYTES is the sum of the fields");
    checksum.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], identity: VoteIdentity) -> Result<Durable, VoteFault> {
    let mut fields = Bytes::new(bytes);
    let magic = fields.take(MAGIC.len()).map_err(|_| VoteFault::Damaged)?;
    let format = fields.u32().map_err(|_| VoteFault::Damaged)?;
    if magic != MAGIC {
        return Err(VoteFault::Damaged);
    }
    if format != FORMAT {
        return Err(VoteFault::Format(format));
    }
    let content = bytes.get(..CONTENT_BYTES).ok_or(VoteFault::Damaged)?;
    let checksum = crc32c::crc32c(content).to_le_bytes();
    if bytes[CONTENT_BYTES..] != checksum {
        return Err(VoteFault::Damaged);
    }
    let found = VoteIdentity {
        cluster: fields.u32().map_err(|_| VoteFault::Damaged)?,
        node: fields.u16().map_err(|_| VoteFault::Damaged)?,
    };
    if found != identity {
        return Err(VoteFault::Identity(found));
    }
    read_durable(&mut fields).map_err(|_| VoteFault::Damaged)
}

fn read_durable(fields: &mut Bytes<'_>) -> Result<Durable, crate::frame::FrameError> {
    let (incarnation, kept) = (fields.u32()?, fields.u8()? == 1);
    let (promised, accepted) = (fields.u64()?, fields.u64()?);
    Ok(Durable {
        incarnation,
        kept,
        vote: Vote {
            promised: Ballot::from_u64(promised),
            accepted: (Ballot::from_u64(accepted), wire::view(fields)?),
        },
    })
}

impl From<io::Error> for VoteFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl std::fmt::Display for VoteFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost => f.write_str(
                "there is no vote file: if this node never ran, `touch vote.boot` where it belongs \
                 lets it begin; if it did, its vote is lost, and if no other process runs as this \
                 node, `date +%s > vote.replace` lets the next start read it back from the others",
            ),
            Self::Damaged => f.write_str("the vote file is damaged, so its vote is lost"),
            Self::Format(found) => write!(f, "vote file format {found} is not one it reads"),
            Self::Identity(found) => write!(
                f,
                "the vote file belongs to node {} of cluster {}",
                found.node, found.cluster
            ),
            Self::Replacement => {
                f.write_str("vote.replace must hold the seconds since 1970: date +%s")
            }
            Self::Clock => f.write_str(
                "this host's clock is wrong, and the first start of a node counts by it",
            ),
            Self::Locked => f.write_str("another process holds the vote file"),
            Self::IncarnationsExhausted => f.write_str("the node was started 2^32 - 1 times"),
            Self::Io(kind) => write!(f, "{kind}"),
        }
    }
}

impl std::error::Error for VoteFault {}

const MAGIC: [u8; 8] = *b"rtolvote";
const FORMAT: u32 = 1;
/// The year 2001: a number below was not given as a time.
const SECONDS_MIN: u32 = 1_000_000_000;
/// Number, gone, kmin, changed, settled, then incarnation, standing and settled without of each node.
const VIEW_BYTES: usize = 4 + 4 + 1 + 4 + 4 + VOTERS_MAX * 9;
const CONTENT_BYTES: usize = 8 + 4 + 4 + 2 + 4 + 1 + 8 + 8 + VIEW_BYTES;
const FILE_BYTES: usize = CONTENT_BYTES + 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{View, ViewConfig, Views};

    const IDENTITY: VoteIdentity = VoteIdentity {
        cluster: 7,
        node: 2,
    };
    const NOW_S: u32 = 1_700_000_000;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("deep/vote");
        (dir, path)
    }

    fn opened(path: &Path) -> VoteFile {
        VoteFile::open(path, IDENTITY, NOW_S).expect("a vote file")
    }

    fn fault(path: &Path) -> VoteFault {
        VoteFile::open(path, IDENTITY, NOW_S)
            .map(|_| ())
            .unwrap_err()
    }

    fn a_vote(incarnation: u32) -> Durable {
        let ballot = Ballot::new(9, 2);
        let view = View {
            number: 12,
            gone: 2,
            kmin: 1,
            ..View::genesis()
        };
        Durable {
            incarnation,
            kept: false,
            vote: Vote {
                promised: ballot,
                accepted: (ballot, view),
            },
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn a_missing_file_is_a_first_boot_only_once_and_only_if_permitted() {
        let (_dir, path) = place();
        assert_eq!(fault(&path), VoteFault::Lost);
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        let vote = opened(&path);
        assert_eq!((vote.boot(), vote.incarnation()), (Boot::First, NOW_S + 1));
        assert_eq!(vote.durable(), Durable::first_boot(NOW_S));
        assert!(!vote.durable().kept, "it has nothing");
        drop(vote);
        assert_eq!(opened(&path).boot(), Boot::Again);
        fs::remove_file(&path).expect("the file is there");
        assert_eq!(fault(&path), VoteFault::Lost, "the permission is used up");
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn a_disk_that_is_lost_and_bootstrapped_again_repeats_no_incarnation() {
        let (_dir, path) = place();
        let mut seen = std::collections::BTreeSet::new();
        for disk in 0..3 {
            VoteFile::permit_first_boot(&path).expect("a writable folder");
            for _ in 0..5 {
                let vote = VoteFile::open(&path, IDENTITY, NOW_S + 60 * disk);
                assert!(seen.insert(vote.expect("a vote file").incarnation()));
            }
            fs::remove_file(&path).expect("the file is there");
        }
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        let without_clock = VoteFile::open(&path, IDENTITY, 90).map(|_| ());
        assert_eq!(without_clock, Err(VoteFault::Clock));
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn a_lost_vote_is_replaced_once_under_an_incarnation_above_all_others() {
        let (_dir, path) = place();
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        opened(&path).save(&a_vote(5)).expect("a writable folder");
        VoteFile::permit_replacement(&path, 1_800_000_000).expect("a writable folder");
        assert_eq!(opened(&path).boot(), Boot::Again, "there is a vote");
        fs::remove_file(&path).expect("the file is there");
        fs::write(path.with_extension("replace"), "7").expect("a writable folder");
        assert_eq!(fault(&path), VoteFault::Replacement);
        VoteFile::permit_replacement(&path, 1_800_000_000).expect("a writable folder");
        let vote = opened(&path);
        assert_eq!(
            (vote.boot(), vote.incarnation()),
            (Boot::Replaced, 1_800_000_001)
        );
        assert!(vote.durable().is_lost() && !vote.durable().kept);
        drop(vote);
        assert!(opened(&path).durable().is_lost(), "until it is read back");
        fs::remove_file(&path).expect("the file is there");
        assert_eq!(fault(&path), VoteFault::Lost, "the permission is used up");
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn every_open_has_an_incarnation_of_its_own_even_if_nothing_follows() {
        let (_dir, path) = place();
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        for expected in NOW_S + 1..NOW_S + 5 {
            // As after a crash between opening and the first use.
            assert_eq!(opened(&path).incarnation(), expected);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn views_start_under_the_incarnation_of_the_file_without_a_further_write() {
        let (_dir, path) = place();
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        for expected in NOW_S + 1..NOW_S + 3 {
            let mut vote = opened(&path);
            let config = ViewConfig {
                node: 2,
                voters: 3,
                witnesses: 0,
                copies: 2,
            };
            let views = Views::start(config, vote.durable(), true, 1, &mut vote);
            assert_eq!(views.expect("three voters").incarnation(), expected);
            assert_eq!(vote.saved.incarnation, expected);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn a_saved_vote_is_read_back() {
        let (_dir, path) = place();
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        opened(&path).save(&a_vote(5)).expect("a writable folder");
        let vote = opened(&path);
        assert_eq!(vote.durable(), a_vote(5));
        assert_eq!((vote.boot(), vote.incarnation()), (Boot::Again, 6));
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn a_damaged_file_is_never_taken_for_a_vote_nor_for_a_first_boot() {
        let (_dir, path) = place();
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        opened(&path).save(&a_vote(5)).expect("a writable folder");
        let whole = fs::read(&path).expect("the file is there");
        assert_eq!(whole.len(), FILE_BYTES);
        fs::write(path.with_extension("boot"), []).expect("a writable folder");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).expect("a writable folder");
            let format = matches!(fault(&path), VoteFault::Format(_)) && (8..12).contains(&at);
            assert!(format || fault(&path) == VoteFault::Damaged, "byte {at}");
            fs::write(&path, &whole[..at]).expect("a writable folder");
            assert_eq!(fault(&path), VoteFault::Damaged, "cut to {at}");
        }
        fs::write(&path, &whole).expect("a writable folder");
        assert_eq!(opened(&path).durable(), a_vote(5));
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn what_an_interrupted_save_left_behind_changes_nothing() {
        let (_dir, path) = place();
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        opened(&path).save(&a_vote(5)).expect("a writable folder");
        for len in [0, 10, FILE_BYTES] {
            fs::write(path.with_extension("new"), vec![7; len]).expect("a writable folder");
            assert_eq!(opened(&path).durable().vote, a_vote(5).vote);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn another_nodes_vote_and_a_second_process_are_refused() {
        let (_dir, path) = place();
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        let vote = opened(&path);
        assert_eq!(fault(&path), VoteFault::Locked);
        drop(vote);
        let other = VoteIdentity {
            node: 3,
            ..IDENTITY
        };
        let refused = VoteFile::open(&path, other, NOW_S).map(|_| ()).unwrap_err();
        assert_eq!(refused, VoteFault::Identity(IDENTITY));
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes files")]
    fn a_disk_that_refuses_fails_the_save_and_keeps_the_former_vote() {
        let (_dir, path) = place();
        VoteFile::permit_first_boot(&path).expect("a writable folder");
        let mut vote = opened(&path);
        // A folder stands where the next content should go.
        fs::create_dir(path.with_extension("new")).expect("a writable folder");
        assert_eq!(vote.save(&a_vote(5)), Err(SaveFault));
        assert_eq!(vote.saves_failed(), 1);
        fs::remove_dir(path.with_extension("new")).expect("the folder is there");
        drop(vote);
        assert_eq!(opened(&path).durable().vote, Durable::first_boot(0).vote);
    }
}
