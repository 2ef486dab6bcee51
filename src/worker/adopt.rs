//! Takes over a volume that the state file does not list: finds out how it was made, and opens it.

use super::check::read_checked_header;
use super::claim::claim;
use super::error::WorkerError;
use super::stage::Stage;
use super::unlock::free_name;
use crate::job::{self, Answer};
use crate::key::Passphrase;
use crate::luks2::{Expected, HeaderPolicy, Layout, Luks2Header, Token, check_header};
use crate::storage::cryptsetup::{self, Mapping};
use crate::storage::{dm, filesystem};

/// Checks the header, proves the key, and opens the volume unless it is open. The data is not changed.
///
/// The header is read without libcryptsetup first, which would repair a damaged copy of a header that is then refused.
pub(super) fn adopt(job: &job::Adopt, key: Option<Passphrase>, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Adopt { target, expected, mapper, open } = job;
    let disk = claim(target, stage)?;
    stage.enter("checking the header");
    let Luks2Header { metadata, .. } = Luks2Header::read_intact(&disk)?;
    let tokens = metadata.as_ref().map_or(0, Token::count);
    if tokens > 1 {
        return Err(WorkerError::SeveralKeys(tokens));
    }
    let metadata = read_checked_header(&disk, expected)?;
    let layout = Layout::from_header(&metadata).ok_or(WorkerError::NoLayout)?;
    let expected = Expected { header: HeaderPolicy::Recorded(layout), ..expected.clone() };
    check_header(&metadata, &expected)?;
    let key = key.ok_or(WorkerError::NoPassphrase)?;
    stage.enter("unlocking");
    let mapping = free_name(mapper)?;
    let opened = if *open && mapping == Mapping::Open {
        cryptsetup::prove(&target.path, &expected, &key)?
    } else {
        cryptsetup::open(&target.path, mapper, &expected, &key)?
    };
    drop(key);
    let filesystem = filesystem::find_filesystem(&dm::node(mapper)?)?;
    Ok(Answer::Adopted { layout, filesystem, opened })
}
