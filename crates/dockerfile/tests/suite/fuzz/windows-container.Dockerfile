# escape=`
FROM mcr.microsoft.com/windows/nanoserver:ltsc2022
SHELL ["cmd", "/S", "/C"]
WORKDIR C:\app
COPY bin\Release C:\app\
COPY . .
RUN dir c:\ `
    && echo done
ENV X=C:\x PATH="C:\tools;${PATH}"
WORKDIR sub\dir
ENTRYPOINT ["C:\\app\\x.exe"]
CMD x.exe /y
