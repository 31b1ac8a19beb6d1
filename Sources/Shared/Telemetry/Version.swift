/// orch's own version, the same in every program.
public enum Version {
  public static let text = "0.1.0"
}
