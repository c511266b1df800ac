//! What the multiplexer needs of a UART.

/// A UART with queues in both directions.
pub trait Uart {
    /// Hands bytes to the device as long as it takes them without waiting; returns how many.
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// Takes the next received byte.
    fn read(&mut self) -> Option<u8>;
    /// How many times received bytes were lost, as nobody took them in time, since the last call.
    fn overruns(&mut self) -> u32;
    /// Whether to interrupt when the device can take more bytes. Only switched on after a [`Uart::write`] that left bytes
    /// over or filled the device, so that devices that interrupt on a transition do so.
    fn tx_interrupt(&mut self, on: bool);
    /// Whether everything written has left the device.
    fn is_idle(&self) -> bool;
}
