//! The bundled CDF's store: records and assembled CDRs in SQLite.
//!
//! `records` holds one row per (Session-Id, Accounting-Record-Number) with the whole ACR beside
//! the fields a rating system asks for; `cdrs` one row per session, written when its STOP or
//! EVENT is there and again when a late record completes it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use charging::diameter::avp::Message;
use charging::rf::backlog::StoreError;
use charging::server::cdr::{Cdr, InterimLost};
use charging::server::record::{CdfStore, Put, ReceivedRecord};
use charging::state::RecordType;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::Serialize;

use super::NodeError;

/// Records and CDRs in one SQLite file.
pub(super) struct SqliteStore {
    connection: Connection,
    closed: Vec<String>,
    open: bool,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS records (
    session_id TEXT NOT NULL, number INTEGER NOT NULL, type INTEGER NOT NULL,
    event_time_s INTEGER, origin_host TEXT, icid TEXT, calling_party TEXT, called_party TEXT,
    subscription TEXT, sip_method TEXT, cause_code INTEGER, request_time_ms INTEGER,
    response_time_ms INTEGER, retransmitted INTEGER NOT NULL, received_ms INTEGER NOT NULL,
    acr BLOB NOT NULL, PRIMARY KEY (session_id, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cdrs (
    session_id TEXT PRIMARY KEY, icid TEXT, calling_party TEXT, called_party TEXT,
    subscription TEXT, sip_method TEXT, is_event INTEGER, start_ms INTEGER, end_ms INTEGER,
    duration_ms INTEGER, cause_code INTEGER, records INTEGER, incomplete INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

impl SqliteStore {
    pub(super) fn open(path: &Path, interim_interval_s: u32) -> Result<Self, NodeError> {
        let wrong =
            |error: rusqlite::Error| NodeError::Store(format!("{}: {error}", path.display()));
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(|error| NodeError::File(dir.to_owned(), error))?;
        }
        let connection = Connection::open(path).map_err(wrong)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(wrong)?;
        connection
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(wrong)?;
        connection.execute_batch(SCHEMA).map_err(wrong)?;
        connection
            .execute(
                "INSERT OR REPLACE INTO meta VALUES ('interim_interval_s', ?1)",
                [interim_interval_s],
            )
            .map_err(wrong)?;
        Ok(Self {
            connection,
            closed: Vec::new(),
            open: false,
        })
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        if !self.open {
            self.connection.execute_batch("BEGIN")?;
            self.open = true;
        }
        Ok(())
    }

    fn put_row(&mut self, record: &ReceivedRecord<'_>) -> rusqlite::Result<Put> {
        self.begin()?;
        let session = text(record.session_id);
        let stored: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT acr FROM records WHERE session_id = ?1 AND number = ?2")?
            .query_row(params![session, record.record_number], |row| row.get(0))
            .optional()?;
        if let Some(stored) = stored {
            if record.same_content(&stored) {
                return Ok(Put::Duplicate);
            }
            let number = record.record_number;
            tracing::warn!(%session, number, "a record came again with other contents");
            return Ok(Put::Conflict);
        }
        self.connection
            .prepare_cached(
                "INSERT INTO records VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)",
            )?
            .execute(params![
                session,
                record.record_number,
                record.record_type as u32,
                record.event_time_s,
                text(record.origin_host),
                text(record.icid),
                text(record.calling_party),
                text(record.called_party),
                text(record.subscription),
                text(record.sip_method),
                record.cause_code,
                record.request_time.map(|time| time.0),
                record.response_time.map(|time| time.0),
                record.retransmitted,
                now_ms(),
                record.raw,
            ])?;
        let closes = matches!(record.record_type, RecordType::Stop | RecordType::Event);
        if closes || (record.retransmitted && self.has_cdr(&session)?) {
            self.closed.push(session);
        }
        Ok(Put::New)
    }

    fn has_cdr(&self, session: &str) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached("SELECT 1 FROM cdrs WHERE session_id = ?1")?
            .exists([session])
    }

    fn write_cdrs(&mut self) -> rusqlite::Result<()> {
        for session in std::mem::take(&mut self.closed) {
            let rows = records_of(&self.connection, &session)?;
            let records = read_all(&rows);
            let Some(cdr) = Cdr::assemble(&records, true) else {
                continue;
            };
            self.connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO cdrs VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)",
                )?
                .execute(params![
                    session,
                    text(cdr.icid),
                    text(cdr.calling_party),
                    text(cdr.called_party),
                    text(cdr.subscription),
                    text(cdr.sip_method),
                    cdr.is_event,
                    cdr.start_time.map(|time| time.0),
                    cdr.end_time.map(|time| time.0),
                    cdr.duration_ms,
                    cdr.cause_code,
                    cdr.records,
                    is_incomplete(&cdr),
                ])?;
        }
        Ok(())
    }
}

impl CdfStore for SqliteStore {
    fn put(&mut self, record: &ReceivedRecord<'_>) -> Result<Put, StoreError> {
        self.put_row(record).map_err(|error| store_error(&error))
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.write_cdrs().map_err(|error| store_error(&error))?;
        if std::mem::take(&mut self.open) {
            self.connection.execute_batch("COMMIT").map_err(|error| {
                let _ = self.connection.execute_batch("ROLLBACK");
                store_error(&error)
            })?;
        }
        Ok(())
    }
}

fn store_error(error: &rusqlite::Error) -> StoreError {
    tracing::error!(%error, "the CDF's store failed");
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
        _ => StoreError::Failed,
    }
}

fn records_of(connection: &Connection, session: &str) -> rusqlite::Result<Vec<Vec<u8>>> {
    connection
        .prepare_cached("SELECT acr FROM records WHERE session_id = ?1 ORDER BY number")?
        .query_map([session], |row| row.get(0))?
        .collect()
}

fn read_all(rows: &[Vec<u8>]) -> Vec<ReceivedRecord<'_>> {
    rows.iter()
        .filter_map(|raw| ReceivedRecord::read(&Message::parse(raw).ok()?).ok())
        .collect()
}

fn is_incomplete(cdr: &Cdr<'_>) -> bool {
    cdr.start_lost || cdr.stop_lost || cdr.interim_lost == InterimLost::Yes
}

/// A CDR as it is listed.
#[derive(Serialize)]
pub struct CdrLine {
    /// Session-Id.
    pub session_id: String,
    /// User-Session-Id: the caller's Call-ID.
    pub user_session_id: String,
    /// IMS-Charging-Identifier.
    pub icid: String,
    /// `session` or `event`.
    pub kind: &'static str,
    /// SIP-Method of the first record.
    pub sip_method: String,
    /// First Calling-Party-Address.
    pub calling_party: String,
    /// Called-Party-Address.
    pub called_party: String,
    /// Data of the first Subscription-Id.
    pub subscription: String,
    /// When the INVITE came, ms since 1970.
    pub request_time_ms: Option<u64>,
    /// When the 2xx came, ms since 1970.
    pub start_time_ms: Option<u64>,
    /// When the BYE came, ms since 1970.
    pub end_time_ms: Option<u64>,
    /// Between start and end, ms.
    pub duration_ms: Option<u64>,
    /// Cause-Code.
    pub cause_code: Option<i32>,
    /// `complete`, `open` (no STOP yet) or `incomplete` (something is lost).
    pub status: &'static str,
    /// aCRStartLost.
    pub start_lost: bool,
    /// aCRInterimLost: `no`, `yes` or `unknown`.
    pub interim_lost: &'static str,
    /// aCRStopLost.
    pub stop_lost: bool,
    /// A retransmitted record fed the CDR.
    pub retransmission: bool,
    /// Its records, by number.
    pub records: Vec<RecordLine>,
}

/// A record as it is listed.
#[derive(Serialize)]
pub struct RecordLine {
    /// Accounting-Record-Number.
    pub record_number: u32,
    /// `START`, `INTERIM`, `STOP` or `EVENT`.
    pub record_type: &'static str,
    /// Event-Timestamp, seconds since 1970.
    pub event_time_s: Option<u64>,
    /// Cause-Code.
    pub cause_code: Option<i32>,
    /// The record came with the T flag.
    pub retransmitted: bool,
    /// Origin-Host of the record.
    pub origin_host: String,
}

/// Visits the CDRs of a store, in the order of their Session-Ids.
pub fn list_cdrs(path: &Path, mut visit: impl FnMut(CdrLine)) -> Result<(), NodeError> {
    let wrong = |error: rusqlite::Error| NodeError::Store(format!("{}: {error}", path.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(wrong)?;
    let patience_ms = patience_ms(&connection).map_err(wrong)?;
    let mut query = connection
        .prepare("SELECT session_id, acr, received_ms FROM records ORDER BY session_id, number")
        .map_err(wrong)?;
    let mut rows = query.query([]).map_err(wrong)?;
    let mut session = String::new();
    let mut raw: Vec<Vec<u8>> = Vec::new();
    let mut last_ms = 0u64;
    while let Some(row) = rows.next().map_err(wrong)? {
        let id: String = row.get(0).map_err(wrong)?;
        if id != session {
            emit(&raw, last_ms + patience_ms < now_ms(), &mut visit);
            raw.clear();
            session = id;
            last_ms = 0;
        }
        raw.push(row.get(1).map_err(wrong)?);
        last_ms = last_ms.max(row.get(2).map_err(wrong)?);
    }
    emit(&raw, last_ms + patience_ms < now_ms(), &mut visit);
    Ok(())
}

// RFC 6733 8.2: after twice the interval without a record the session counts as dead.
fn patience_ms(connection: &Connection) -> rusqlite::Result<u64> {
    let interval: Option<u64> = connection
        .query_row(
            "SELECT value FROM meta WHERE key = 'interim_interval_s'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok(match interval {
        Some(seconds) if seconds > 0 => seconds * 2_000,
        _ => 24 * 3_600 * 1_000,
    })
}

fn emit(raw: &[Vec<u8>], is_over: bool, visit: &mut impl FnMut(CdrLine)) {
    let records = read_all(raw);
    let Some(cdr) = Cdr::assemble(&records, is_over) else {
        return;
    };
    let closed = records
        .iter()
        .any(|record| matches!(record.record_type, RecordType::Stop | RecordType::Event));
    visit(CdrLine {
        session_id: text(cdr.session_id),
        user_session_id: records
            .first()
            .map_or_else(String::new, |r| text(r.user_session_id)),
        icid: text(cdr.icid),
        kind: if cdr.is_event { "event" } else { "session" },
        sip_method: text(cdr.sip_method),
        calling_party: text(cdr.calling_party),
        called_party: text(cdr.called_party),
        subscription: text(cdr.subscription),
        request_time_ms: cdr.request_time.map(|time| time.0),
        start_time_ms: cdr.start_time.map(|time| time.0),
        end_time_ms: cdr.end_time.map(|time| time.0),
        duration_ms: cdr.duration_ms,
        cause_code: cdr.cause_code,
        status: match (closed, is_incomplete(&cdr)) {
            (_, true) => "incomplete",
            (true, false) => "complete",
            (false, false) => "open",
        },
        start_lost: cdr.start_lost,
        interim_lost: match cdr.interim_lost {
            InterimLost::No => "no",
            InterimLost::Yes => "yes",
            InterimLost::Unknown => "unknown",
        },
        stop_lost: cdr.stop_lost,
        retransmission: cdr.retransmission,
        records: records.iter().map(record_line).collect(),
    });
}

fn record_line(record: &ReceivedRecord<'_>) -> RecordLine {
    RecordLine {
        record_number: record.record_number,
        record_type: match record.record_type {
            RecordType::Start => "START",
            RecordType::Interim => "INTERIM",
            RecordType::Stop => "STOP",
            RecordType::Event => "EVENT",
        },
        event_time_s: record.event_time_s,
        cause_code: record.cause_code,
        retransmitted: record.retransmitted,
        origin_host: text(record.origin_host),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
