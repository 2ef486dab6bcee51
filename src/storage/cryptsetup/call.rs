//! Calls libcryptsetup and collects the error messages that it logs.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Once;

use libcryptsetup_rs::consts::vals::CryptLogLevel;
use libcryptsetup_rs::{CryptDevice, CryptInit, Either, LibcryptErr, c_logging_callback, set_log_callback};

use super::error::LuksError;

thread_local! {
    pub(super) static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn log_line(level: CryptLogLevel, message: &str, _: Option<&mut ()>) {
    match level {
        CryptLogLevel::Error => LOG.with_borrow_mut(|log| log.push(message.to_owned())),
        CryptLogLevel::Normal | CryptLogLevel::Verbose | CryptLogLevel::Debug | CryptLogLevel::DebugJson => {}
    }
}

c_logging_callback!(log_callback, (), log_line);

/// Adds the attempted action and the collected log to the error of a libcryptsetup call.
pub(super) fn call<T>(action: impl Into<String>, result: Result<T, LibcryptErr>) -> Result<T, LuksError> {
    let log = LOG.take();
    result.map_err(|source| LuksError::Call { action: action.into(), log, source })
}

pub(super) fn init(device: &Path) -> Result<CryptDevice, LuksError> {
    collect_log();
    call(format!("use {}", device.display()), CryptInit::init(device))
}

/// Uses the header in one file for the data on a device.
pub(super) fn init_with_header(header: &Path, device: &Path) -> Result<CryptDevice, LuksError> {
    collect_log();
    let cd = CryptInit::init_with_data_device(Either::Right((header, device)));
    call(format!("use {} with a copy of its header", device.display()), cd)
}

fn collect_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_log_callback::<()>(Some(log_callback), None));
    LOG.take();
}
