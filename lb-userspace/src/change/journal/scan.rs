//! Reading a journal from its start: record by record, each one checked.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::chain::{Chain, Flaw};
use super::error::{Bad, JournalError};
use super::head;
use super::record::Record;

/// Longest line that is read; far above what is ever written.
const LINE_LIMIT: u64 = 16 * 1024 * 1024;

/// What a whole reading found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Good records from the start up to the first bad place.
    pub records: u64,
    /// The first bad place, if any. A torn end is not bad.
    pub first_bad: Option<Bad>,
    /// An unfinished last line, as a crash leaves it.
    pub torn: Option<Torn>,
    /// The end of the chain of good records.
    pub end: Chain,
    /// Bytes of whole good lines.
    pub good_bytes: u64,
}

/// An unfinished last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The record, if only the newline is missing.
    pub whole: Option<Box<Record>>,
}

/// Records of a journal, in order, each checked. Ends at the first bad place;
/// [`Scan::report`] then tells whether that was the end.
#[derive(Debug)]
pub struct Scan<R> {
    input: BufReader<R>,
    head: Option<Chain>,
    report: Report,
    done: bool,
}

impl Scan<File> {
    /// Opens the journal at `path` for reading. No lock: a writer may go on.
    ///
    /// # Errors
    ///
    /// [`JournalError::Absent`], [`JournalError::Denied`], [`JournalError::Io`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        // The head first: it is never ahead of the journal that is read later.
        let head = head::read(path);
        let file = File::open(path).map_err(|error| JournalError::io(path, error))?;
        Ok(Self::new(file, head))
    }
}

impl<R: Read> Scan<R> {
    /// Reads `input`, which must reach at least as far as `head`.
    pub fn new(input: R, head: Option<Chain>) -> Self {
        Self {
            input: BufReader::new(input),
            head,
            report: Report::default(),
            done: false,
        }
    }

    /// What was found, complete once the records have ended.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Reads to the end and tells what was found.
    ///
    /// # Errors
    ///
    /// A failing disk.
    pub fn finish(mut self) -> io::Result<Report> {
        for record in self.by_ref() {
            record?;
        }
        Ok(self.report)
    }

    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.input
            .by_ref()
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut line)?;
        Ok(line)
    }

    fn step(&mut self) -> io::Result<Option<Record>> {
        let line = self.read_line()?;
        if line.is_empty() {
            self.check_cut_off();
            return Ok(None);
        }
        let Some(body) = line.strip_suffix(b"\n") else {
            self.check_tail(line);
            return Ok(None);
        };
        match self
            .report
            .end
            .accept(body)
            .and_then(|record| self.check_head(record))
        {
            Ok(record) => {
                self.count(&record, line.len());
                Ok(Some(record))
            }
            Err(why) => {
                self.bad(why);
                Ok(None)
            }
        }
    }

    fn count(&mut self, record: &Record, bytes: usize) {
        let report = &mut self.report;
        report.records = report.records.saturating_add(1);
        report.end.advance(record);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        report.good_bytes = report.good_bytes.saturating_add(bytes);
    }

    /// The head file must know the same record under the same number.
    fn check_head(&self, record: Record) -> Result<Record, Flaw> {
        match &self.head {
            Some(head) if head.seq == record.seq && head.hash != record.hash => Err(Flaw::Head),
            _ => Ok(record),
        }
    }

    /// A last line without newline is torn, unless the head file knows that the
    /// record was whole once.
    fn check_tail(&mut self, bytes: Vec<u8>) {
        let chain = &self.report.end;
        let whole = chain
            .accept(&bytes)
            .and_then(|record| self.check_head(record));
        let known = self.head.as_ref().is_some_and(|head| head.seq > chain.seq);
        match whole {
            Err(why) if known => self.bad(why),
            whole => {
                self.report.torn = Some(Torn {
                    bytes,
                    whole: whole.ok().map(Box::new),
                });
            }
        }
    }

    /// At the end of the file: does the head file know of more?
    fn check_cut_off(&mut self) {
        if let Some(upto) = self.head.as_ref().map(|head| head.seq)
            && upto > self.report.end.seq
        {
            self.bad(Flaw::CutOff { upto });
        }
    }

    fn bad(&mut self, why: Flaw) {
        let next = self.report.records.saturating_add(1);
        self.report.first_bad = Some(Bad {
            seq: next,
            line: next,
            why,
        });
    }
}

impl<R: Read> Iterator for Scan<R> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Checks the whole journal at `path` without changing anything.
///
/// # Errors
///
/// Only if it can't be read; a bad record is in the [`Report`].
pub fn verify(path: &Path) -> Result<Report, JournalError> {
    Scan::open(path)?
        .finish()
        .map_err(|error| JournalError::io(path, error))
}

/// What stands behind the first bad place of the journal at `path`, as far as it reads as records
/// at all. Nothing of it is proven: for telling an operator what may be lost, and for nothing else.
///
/// # Errors
///
/// Only if it can't be read.
pub fn unverified(path: &Path, report: &Report) -> Result<Vec<Record>, JournalError> {
    if report.first_bad.is_none() {
        return Ok(Vec::new());
    }
    let failed = |error| JournalError::io(path, error);
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(report.good_bytes))
        .map_err(failed)?;
    let mut input = BufReader::new(file);
    let mut records = Vec::new();
    loop {
        let mut line = Vec::new();
        let mut bounded = input.by_ref().take(LINE_LIMIT);
        if bounded.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(records);
        }
        records.extend(serde_json::from_slice::<Record>(&line));
    }
}

/// The good records of the journal at `path`, and the report on all of it.
///
/// # Errors
///
/// Only if it can't be read.
pub fn read(path: &Path) -> Result<(Vec<Record>, Report), JournalError> {
    let mut scan = Scan::open(path)?;
    let records = scan
        .by_ref()
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| JournalError::io(path, error))?;
    Ok((records, scan.report))
}
